"""Programs: the environment, and the grading of a program by tests in warm sandboxes."""

from .env import CodeEnv as CodeEnv
