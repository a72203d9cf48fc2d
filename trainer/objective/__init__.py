"""From rewards to numbers per token: advantages, losses, the critic and the reference.

May import: batching, recipe.
Begin at: losses.py (the clip is there), advantages.py.
"""
