"""Messages, tools, sampling settings and completions; renderers and parsers. Free of torch.

May import: nothing of model; no torch.
Begin at: messages.py, then protocols.py.
"""
