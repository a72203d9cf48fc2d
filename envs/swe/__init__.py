"""Repair of repositories: the environments, and the grading of a patch by hidden tests."""

from .env import SWEEnv as SWEEnv
