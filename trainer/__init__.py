"""The trainer: supervised stages and policy gradients over trajectories.

May import: every floor below.
Begin at: run/train.py; docs/architecture.md draws the rooms.
"""
