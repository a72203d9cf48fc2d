"""HTTP, whoever answers: bodies of JSON, events, and errors in OpenAI's format. Free of torch.

May import: model/chat, errors.
Begin at: json_body.py, then events.py.
"""
