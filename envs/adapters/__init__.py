"""Environments of other libraries as ours, and ours as theirs. Each library is asked for where it is used.

May import: registry, core and what is below.
Begin at: gymnasium_text.py.
"""
