"""Tests beside the hidden ones that tell wrong solutions from the reference: copies with other arguments, and calls.

May import: solutions, text, and how a row's tests are run (bench.py).
Begin at: strengthen.py.
"""
