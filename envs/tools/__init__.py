"""Tools that environments share.

May import: nothing of envs.
Begin at: spec.py (``@tool``).
"""
