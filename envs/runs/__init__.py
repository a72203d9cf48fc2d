"""Folders of runs: who may write to one, and files that are whole or not there.

May import: nothing of envs.
Begin at: lock.py, files.py.
"""
