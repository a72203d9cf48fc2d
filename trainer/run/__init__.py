"""A whole run: its stages, checkpoints, evaluations, report and commands.

May import: every room of trainer.
Begin at: train.py, then stages/.
"""
