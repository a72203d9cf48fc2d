"""A model behind OpenAI's HTTP interface.

May import: engine, chat, web, weights.
Begin at: app.py.
"""
