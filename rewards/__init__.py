"""Rewards: pure functions from evidence to a score. No sandbox, no network, no state.

May import: the standard library and numeric libraries.
Begin at: swe.py, code.py, math.py: one a family.
"""
