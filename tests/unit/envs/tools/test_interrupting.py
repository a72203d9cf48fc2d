"""Exceptions in other threads: met, or taken back, and nothing stays behind in the process."""

import contextlib
import subprocess
import sys
import threading
import time

import pytest

from verigym.envs.tools import interrupting


class Stop(BaseException):
    pass


def test_a_thread_that_runs_python_code_meets_it():
    met = []

    def work():
        try:
            while True:
                pass
        except Stop:
            met.append(True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    interrupting.interrupt(thread, Stop)
    thread.join(20)
    assert met == [True]


def test_a_thread_that_could_not_run_for_a_while_meets_it_later():
    def work():
        with contextlib.suppress(Stop):
            time.sleep(2 * interrupting.MET_S)  # as if the machine had let others run
            while True:
                pass

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    interrupting.interrupt(thread, Stop)
    thread.join(20)
    assert not thread.is_alive()


BLOCKED = """
thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
thread.start()
interrupting.interrupt(thread, KeyError)
time.sleep(2 * interrupting.MET_S + 0.5)
"""
TAKEN_BACK = """
thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
thread.start()
interrupting.raise_in(thread.ident, KeyError)
interrupting.take_back(thread.ident)
"""


@pytest.mark.parametrize("work", [BLOCKED, TAKEN_BACK], ids=["interrupted", "taken back"])
def test_what_is_traced_goes_on_beside_a_thread_that_waits_in_c(work):
    program = f"""
import sys, threading, time
from verigym.envs.tools import interrupting
{work}
def traced():
    return sum(number for number in range(9))
sys.settrace(lambda *_: None)
print(traced())
sys.settrace(None)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "36", done.stderr
