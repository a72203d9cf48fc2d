"""Weights by name: whose names, in which files, and how one becomes another."""
