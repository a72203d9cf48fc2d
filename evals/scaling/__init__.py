"""Test-time scaling: one of k samples is chosen without looking at what grades it.

May import: evals.
Begin at: run.py.
"""
