"""Tests beside the hidden ones that tell wrong solutions from the reference: copies with other arguments, and calls.

May import: solutions, text, bench.py (how a row's tests are run) and measure.py (with what effort).
Begin at: strengthen.py.
"""
