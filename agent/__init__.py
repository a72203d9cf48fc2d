"""The agent: policies, the loop that drives an episode, and the trajectory it leaves.

May import: envs, rewards, model.chat.
Begin at: loop.py (one episode), policy.py, trajectory.py.
"""
