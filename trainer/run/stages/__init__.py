"""The stages of a run, a file each; ``order`` says what a stage is, and finds them.

May import: run and every room of trainer.
Begin at: sft.py, then rl.py.
"""
