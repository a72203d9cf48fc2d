"""A run on paper: episodes, engines and a trainer as events in time, to choose how a cluster is split.

May import: recipe.
Begin at: run.py, then workload.py.
"""
