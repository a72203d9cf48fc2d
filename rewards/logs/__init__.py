"""Logs of SWE-bench evaluations: read by swebench's parsers, doubted by rules of our own.

May import: score, swe.
Begin at: judge.py.
"""
