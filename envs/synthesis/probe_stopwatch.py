"""Inside the sandbox: seconds that a process takes by itself, and code that gets so many. Standard library only."""

import contextlib
import signal
from time import monotonic

AGAIN_S = 0.1


class Stopwatch:
    """Seconds since it was made, without those in which the process was ready and others had its core.

    What the machine's kernel does not tell (``/proc/self/schedstat``) counts as its own.
    """

    def __init__(self):
        self._began, self._held = monotonic(), _held_s()

    def seconds(self):
        return monotonic() - self._began - (_held_s() - self._held)


def _held_s():
    try:
        with open("/proc/self/schedstat") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


@contextlib.contextmanager
def bounded(seconds, words):
    """Raise a TimeoutError in what takes longer by itself, and again where it is caught."""
    watch = Stopwatch()

    def look(number, frame):
        if watch.seconds() >= seconds:
            raise TimeoutError(words)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001), AGAIN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
