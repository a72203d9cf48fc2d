"""Episodes to look at in a browser, from a file: no server, no script, nothing fetched.

May import: evals, agent.
Begin at: cli.py.
"""
