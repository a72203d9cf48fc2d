"""What runs inside a sandbox. Standard library only; nothing outside imports it, it is shipped as code.

May import: the standard library and itself.
Begin at: server.py; main.py is what is run.
"""
