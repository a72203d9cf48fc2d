"""Loaders: benchmark files to tasks.

May import: task.
Begin at: swe.py for repositories, training.py for published training sets.
"""
