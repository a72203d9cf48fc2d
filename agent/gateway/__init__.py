"""The gateway: agents of any make get their turns here, over HTTP, and each token is kept as it was sampled.

May import: agent's policies and trees, model/chat, model/web.
Begin at: session.py, then app.py.
"""
