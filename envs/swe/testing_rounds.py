"""Rounds: after collection, before any test has run, the process forks, again and again, and each child runs tests
either as they are or as twins, in an order that was decided outside.

All children begin in one state, so what the code under test decided while it was imported holds for tests and twins
alike; what it decides later it decides without knowing which of the two is being run.
Part of the program that runs in the sandbox (``testing_guest.py``): standard library only.
"""

import contextlib
import os
import select
import signal
import time
from typing import Any

LIES = ("1 + 1\n", "3\n")
"""An example that no doctest passes."""


class Swap:
    """One test's function with other code in it, or a doctest with one example more; undone at the end."""

    def __init__(self, item, pristine, number):
        self.item, self.held = item, True
        self.function: Any = None
        self.code = self.example = None
        if type(item).__name__ == "DoctestItem":
            import doctest

            self.example = doctest.Example(*LIES) if number else None
            self.possible = True
            return
        self.function = pristine.function_of(
            getattr(item, "obj", None), getattr(item, "originalname", None) or item.name
        )
        if self.function is not None:
            self.original = self.function.__code__
            self.code = pristine.twin_of(self.original, number) if number else self.original.replace()
        self.possible = self.code is not None

    def __enter__(self):
        if self.example is not None:
            self.item.dtest.examples.append(self.example)
        elif self.code is not None:
            self.function.__code__ = self.code

    def __exit__(self, *error):
        if self.example is not None:
            self.item.dtest.examples.remove(self.example)
        elif self.code is not None:
            self.held = self.function.__code__ is self.code
            self.function.__code__ = self.original


class Rounds:
    """Runs plans (one a round: test id -> 0 as it is, or the number of its twin) on collected items."""

    def __init__(self, plans, pristine, recorder, sender, verified, *, fork, everything, limit_s):
        self._plans, self._pristine, self._recorder = plans, pristine, recorder
        self._sender, self._verified = sender, verified
        self._fork, self._everything, self._limit_s = fork, everything, limit_s
        self.outcomes, self.untwinned = [], []

    def run(self, session):
        items = session.items
        for plan in self._plans:
            swaps = {item: Swap(item, self._pristine, plan[item.nodeid]) for item in items if item.nodeid in plan}
            self.untwinned += [item.nodeid for item, swap in swaps.items() if not swap.possible]
            canaries = self._recorder.canaries
            chosen = [n for n in items if self._everything or n in swaps or n.nodeid in canaries]
            self._recorder.check()
            work = _Round(chosen, swaps, self._recorder)
            self.outcomes.append(self._in_child(work) if self._fork else work.run())

    def _in_child(self, work):
        read, write = os.pipe()
        leave, send = os._exit, self._sender(write)
        child = os.fork()
        if not child:
            os.close(read)
            try:
                send(work.run())
            finally:
                leave(0)
        os.close(write)
        try:
            return self._verified(_read_until(read, time.monotonic() + self._limit_s)) or {}
        finally:
            os.close(read)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


class _Round:
    def __init__(self, items, swaps, recorder):
        self._items, self._swaps, self._recorder = items, swaps, recorder

    def run(self):
        """{"statuses", "finished", "canaries_ok", "tampered"} of one round."""
        recorder, items = self._recorder, self._items
        recorder.restart({item.nodeid for item in items})
        for n, item in enumerate(items):
            following = items[n + 1] if n + 1 < len(items) else None
            swap = self._swaps.get(item)
            with swap or contextlib.nullcontext():
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if swap is not None and not swap.held:
                recorder.tampered = recorder.tampered or f"the code of {item.nodeid}"
        recorder.check()
        return recorder.summary()


def _read_until(descriptor, deadline):
    """What a child sends: one line, without its end; b"" where it sends none in time, or more."""
    data = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(descriptor, 1 << 16) if ready else b""
        if not ready:
            return b""
        data += piece
        if not piece or b"\n" in piece:  # what the child has left running may keep the pipe open
            return data.partition(b"\n")[0]
