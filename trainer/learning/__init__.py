"""One update of the weights: scores, the step, the optimizer, and who owns the model.

May import: objective, batching, recipe.
Begin at: learner.py, then step.py.
"""
