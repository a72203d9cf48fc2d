"""What a task's verdict is worth: rows audited from their text, and by variants of their reference in a sandbox.

May import: synthesis and what is below; rewards.
Begin at: certificate.py, then text/static.py.
"""
