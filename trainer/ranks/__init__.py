"""Training over several processes: who they are, what rank 0 asks of the others, and how they answer.

May import: learning, batching.
Begin at: team.py, then rank.py.
"""
