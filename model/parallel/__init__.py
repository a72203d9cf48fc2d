"""The decoder over many GPUs: one mesh, and what each of its axes splits.

May import: the decoder and kernels.
Begin at: place.py, then layout.py.
"""
