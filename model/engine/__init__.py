"""The engine: batched sampling with a KV cache.

May import: chat, kernels and the decoder.
Begin at: generator.py, then batch.py; callers.py and thread.py are a request's life.
"""
