"""Problems of mathematics: one answer, which a checker in a process of its own compares.

May import: code and what is below; rewards.
Begin at: env.py, then equivalence.py.
"""

from .env import MathEnv as MathEnv
