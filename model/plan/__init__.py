"""What a training step needs on a cluster, found without one.

May import: parallel and the decoder.
Begin at: estimate.py.
"""
