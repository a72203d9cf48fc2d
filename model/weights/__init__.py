"""Weights by name: whose names, in which files, and how one becomes another.

May import: the decoder's configuration.
Begin at: names.py, then convert.py.
"""
