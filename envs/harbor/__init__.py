"""Tasks in Harbor's format: a folder with an image, an instruction, and a script that says the reward.

May import: sandbox, core, datasets.
Begin at: env.py (the environment), verify.py (the reward).
"""
