"""Trajectories as documents, and documents as packs of one length.

May import: agent's trajectories.
Begin at: documents.py, then packs.py.
"""
