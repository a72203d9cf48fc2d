"""A run that is held up, as by others on a busy machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verigym.envs.synthesis.probe import _holder


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the state of a process is read from /proc")
def test_a_process_is_stopped_and_goes_on_again_and_again():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    holder = _holder(process.pid, "one")
    states = []
    try:
        end = time.monotonic() + 20.0
        while len(states) < 4 and time.monotonic() < end:
            state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            stopped = state == "T"
            if not states or stopped != states[-1]:
                states.append(stopped)
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        process.kill()
        process.wait()
    assert len(states) == 4
