"""Programs: the environment, and the grading of a program by tests in warm sandboxes.

May import: registry and what is below; rewards.
Begin at: env.py, then grade.py.
"""

from .env import CodeEnv as CodeEnv
