"""What runs inside of vLLM's processes, under vLLM's interpreter, where this package need not be installed.

May import: nothing of this package.
Begin at: verigym_vllm_worker.py.
"""
