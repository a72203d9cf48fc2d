"""Sandboxes in pods of a Kubernetes cluster.

May import: sandbox.
Begin at: backend.py; manifest.py (what a pod is told to be), status.py (what is said of it), cluster.py (the API).
"""
