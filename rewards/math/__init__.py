"""Mathematics: whether a response states the gold answer.

May import: score, broken_off.
Begin at: grade.py, then answers.py (what is stated) and rules.py (whether it is the same).
"""
