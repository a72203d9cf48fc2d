"""A run over a Ray cluster: what it needs, where Ray puts it, and what is done when a part of it dies.

May import: ranks, engines.
Begin at: driver.py, then controller.py.
"""
