"""Another thread's frame, asked for while what would be collected holds values of threads."""

import subprocess
import sys
import threading

from verigym.envs.stacks import frame_of

ASKED = """
import gc, sys, threading
from verigym.envs.stacks import frame_of

class Ring:
    def __init__(self):
        self.own, self.values = self, threading.local()
        self.values.number = 1

def deeper(count):
    return deeper(count - 1) if count else sum(range(50))

def busy():
    while not ended.is_set():
        deeper(20)

ended = threading.Event()
sys.setswitchinterval(1e-4)
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads:
    thread.start()
for number in range(100):
    gc.disable()
    gc.collect()
    Ring()
    gc.set_threshold(gc.get_count()[0] + number % 8)  # the collection falls on one of the next objects
    gc.enable()
    assert frame_of(threads[0].ident) is not None
ended.set()
print("done", gc.isenabled())
"""


def test_what_is_collected_keeps_nobody():
    """With ``sys._current_frames`` itself Python 3.11 stands for good here."""
    told = subprocess.run([sys.executable, "-c", ASKED], capture_output=True, text=True, timeout=60, check=False)
    assert told.stdout + told.stderr == "done True\n"


def test_where_a_thread_stands():
    ready, end = threading.Event(), threading.Event()

    def waits():
        ready.set()
        end.wait()

    thread = threading.Thread(target=waits)
    thread.start()
    ready.wait()
    frame = frame_of(thread.ident)
    while frame.f_code is not waits.__code__:
        frame = frame.f_back
    end.set()
    thread.join()
    assert frame_of(thread.ident) is None
