"""Update after update: imitation, midtraining, reinforcement in turn or ahead, and their metrics.

May import: learning, objective, sampling, batching, recipe.
Begin at: loop.py, then reinforce.py.
"""
