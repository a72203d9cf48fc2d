"""Where trajectories come from: families of tasks, which task is next, groups of episodes, what a policy is worth.

May import: recipe.
Begin at: rollouts.py, then families.py.
"""
