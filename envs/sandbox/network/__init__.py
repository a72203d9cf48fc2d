"""A way out of a sandbox without network: ports of its own loopback that lead to handlers of ours, and nowhere else.

May import: sandbox.
Begin at: policy.py (what may be reached), then attach.py; proxy.py decides, forward.py carries.
"""
