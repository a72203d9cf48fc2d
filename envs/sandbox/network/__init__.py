"""A way out of a sandbox without network: ports of its own loopback that lead to handlers of ours, and nowhere else.

Imports sandbox and errors. Begin with ``policy.py``, then ``attach.py``; ``proxy.py`` decides, ``forward.py`` carries.
"""
