"""vLLM's API server as a process that ends when the one that started it does, however that ends."""

import os
import runpy
import signal
import threading
import time
from pathlib import Path

END_WITH = "VERIGYM_VLLM_END_WITH"
"""Environment variable: the process with which this one ends."""
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_END = 20.0


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _end_with(pid: int) -> None:
    while _is_there(pid):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_SECONDS_TO_END)
    if os.getpgid(0) == os.getpid():  # a session of its own: vLLM's engine, which did not end with it
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with, args=(int(os.environ[END_WITH]),), name="verigym-end-with", daemon=True).start()
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")
