"""Rewards: pure functions from evidence to a score. No sandbox, no network, no state.

May import: the standard library and numeric libraries.
Begin at: swe.py, code.py, trace.py, and the room math: one a family.
"""
