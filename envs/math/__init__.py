"""Problems of mathematics: one answer, which a checker in a process of its own compares."""

from .env import MathEnv as MathEnv
