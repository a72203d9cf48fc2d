"""What environments share: tools, their specifications, and the space of texts.

May import: nothing of envs.
Begin at: spec.py (``@tool``).
"""
