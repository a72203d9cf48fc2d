"""Trajectories as documents, and documents as packs of one length."""
