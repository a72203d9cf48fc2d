"""Repair of repositories: the environments, and the grading of a patch by hidden tests.

May import: registry and what is below; rewards.
Begin at: env.py, then grading.py.
"""

from .env import SWEEnv as SWEEnv
