"""Right and wrong solutions made from a row's reference: what its hidden tests should take, and what they should not.

May import: text.
Begin at: variants.py, then rewrites.py (right ones) and mutants.py (wrong ones).
"""
