"""Fused kernels: Triton programs, the torch operators that launch them, and the float reference of each.

May import: nothing of model.
Begin at: catalogue.py, then attention.py.

A module whose name ends in ``_triton`` imports Triton and is imported only when a kernel is launched; the others work
on a machine without it.
"""
