"""Container images without a container engine: unpacked once a layer, run in namespaces over overlayfs.

May import: sandbox.
Begin at: backend.py; sources.py (where an image comes from), store.py (what is kept of it), unpack.py (one layer).
"""
