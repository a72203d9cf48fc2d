"""Sandboxes: one protocol, several backends.

May import: nothing of envs.
Begin at: types.py (the protocol), launch.py (limits), session.py; choose.py picks one.
"""
