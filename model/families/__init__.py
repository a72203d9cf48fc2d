"""Families of models that our decoder runs, a file each: how their config.json is read and written.

May import: model/config and errors. Free of torch.
Begin at: find.py; common.py has what the families share.
"""
