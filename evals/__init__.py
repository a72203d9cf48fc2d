"""Evaluations: suites, the runner, metrics and reports.

May import: agent, envs, rewards, model.chat.
Begin at: run.py, then report.py.
"""
