"""Engines that sample for a run: in its process, or in processes of their own.

May import: learning, recipe.
Begin at: open.py.
"""
