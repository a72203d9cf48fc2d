"""Making tasks from real code.

May import: swe and what is below.
Begin at: make.py (bugs put in), mine.py (fixes found).
"""
