"""What programs do: their runs recorded, kept as data, and asked of a policy.

May import: synthesis and what is below.
Begin at: run.py, then env.py.
"""
