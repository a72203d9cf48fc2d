"""What is done to boxes of every kind, and what is looked for afterwards."""

import os
import threading
import time
from pathlib import Path

import pytest

from verigym.envs.sandbox.engine import Engine
from verigym.envs.sandbox.settings import SandboxSettings
from verigym.envs.sandbox.types import Limits
from verigym.errors import SandboxError

DEADLINE_S = 120
LEFTOVERS = Path(__file__).parents[4] / "benchmarks" / "sandbox" / "leftovers.py"
ATTACKS = {
    "fork bomb": ("bomb() { bomb | bomb & }; bomb; sleep 60", "processes", Limits(num_processes=64)),
    "closed descriptors": ('for fd in 0 1 2 3 4 5 6 7 8 9; do eval "exec $fd>&-"; done; exec 200>&1', None, Limits()),
    "deaf": ("trap '' TERM INT HUP; while :; do :; done", "timeout", Limits(command_timeout_s=1.0)),
    "killing all": ("kill -9 -1", None, Limits()),
}
"""Name -> (command, what ends it, limits)."""


def connected(host):
    """A fixture's engine; the test is skipped where none answers."""
    try:
        engine = Engine(host, SandboxSettings())
    except SandboxError as error:
        pytest.skip(str(error))
    yield engine
    engine.client.close()


def until(condition, seconds=DEADLINE_S):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition was not met in time"
        time.sleep(0.05)


def held():
    """Of this process."""
    return {"descriptors": len(os.listdir("/proc/self/fd")), "threads": threading.active_count()}
