"""The commands `envs`, `tasks`, `trace` and `doctor`.

May import: every room of envs.
Begin at: tasks.py.
"""
