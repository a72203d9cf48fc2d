"""A model behind OpenAI's HTTP interface.

May import: engine, chat, weights.
Begin at: app.py.
"""
