"""Runs to watch, read and compare in a browser: a server on this machine, or one file without scripts.

May import: evals, agent.
Begin at: app.py; its page is in page/, the chart library in page/vendor/ under its own licence.
"""
