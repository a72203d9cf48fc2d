"""What a row says without being run: its statement and its tests, by signs in them, and as a model reads them.

May import: certificate.py, classes.py, leaks.py, and what audit imports.
Begin at: static.py.
"""
