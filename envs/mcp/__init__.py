"""The Model Context Protocol, both ways: an environment's tools for agents that speak it, and a server's tools as ours.

May import: core, tools, sandbox, registry.
Begin at: env.py, then serve.py.
"""
