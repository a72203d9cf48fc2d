"""Agents of others: processes that do a task in an environment's sandbox, or beside it, and ask the gateway for turns.

May import: agent's loop and gateway, envs.
Begin at: spec.py, then episode.py.
"""
