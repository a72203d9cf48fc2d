"""Runs tests of a copied tree again and again, without loading torch each time.

A line on standard input, ``{"arguments": [...], "timeout_s": 60}``, is a run of pytest in a fork of this process, which
has loaded what others wrote and nothing of ``verigym``. A line on standard output answers it:
``{"code": 1, "told": "..."}``, where ``code`` is pytest's exit code, None after ``timeout_s``.
"""

import importlib
import json
import os
import signal
import sys
import tempfile
import time

LOADED = [
    "docker", "gymnasium", "httpx", "hypothesis", "numpy", "peft", "pyarrow.parquet", "pydantic", "pydantic_settings",
    "pytest", "rich.console", "safetensors.torch", "sympy", "tokenizers", "torch", "torch.distributed.checkpoint",
    "torch.distributed.fsdp", "torch.distributed.tensor", "transformers", "transformers.models.qwen3",
    "triton.language", "unittest.mock",
]  # fmt: skip


def run(arguments, timeout_s):
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            code = 3
            try:
                import pytest

                code = int(pytest.main(arguments))
            finally:
                sys.stdout.flush()
                os._exit(code)
        code, ends = None, time.monotonic() + timeout_s
        while time.monotonic() < ends:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                break
            time.sleep(0.02)
        try:
            os.killpg(child, signal.SIGKILL)  # and what its tests have started
        except ProcessLookupError:
            pass
        if code is None:
            os.waitpid(child, 0)
        output.seek(0)
        return {"code": code, "told": output.read().decode(errors="replace")[-4000:]}


def main():
    if not os.path.exists("/dev/nvidiactl"):
        os.environ.setdefault("TRITON_INTERPRET", "1")  # as tests/conftest.py, before triton is loaded
    for name in LOADED:
        try:
            importlib.import_module(name)
        except ImportError:  # an extra that is not installed: tests that need it say so
            continue
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(run(asked["arguments"], asked["timeout_s"])), flush=True)


if __name__ == "__main__":
    main()
