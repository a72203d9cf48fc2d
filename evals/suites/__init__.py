"""Suites, a file each: what a benchmark's rows mean, how a policy is asked, how a prediction is graded.

May import: evals, envs, rewards.
Begin at: spec.py.
"""
