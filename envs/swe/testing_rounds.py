"""Rounds: after collection, before any test has run, the process forks, again and again, and each child runs tests
either as they are or as twins, in an order that was decided outside.

All children begin in one state, so what the code under test decided while it was imported holds for tests and twins
alike; what it decides later it decides without knowing which of the two is being run.
Part of the program that runs in the sandbox (``testing_guest.py``): standard library only.
"""

import contextlib
import os
import random
import select
import signal
import time
from typing import Any

from .testing_signed import READ, loads, take

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
        for item in items:
            item.repr_failure = str  # nobody reads it, and pytest's takes milliseconds
        self._recorder.check()
        for plan in self._plans:
            swaps = {item: Swap(item, self._pristine, plan[item.nodeid]) for item in items if item.nodeid in plan}
            self.untwinned += [item.nodeid for item, swap in swaps.items() if not swap.possible]
            canaries = self._recorder.few_canaries()
            planted = self._recorder.planted
            around = {n for n in items if n.nodeid not in planted} if self._everything else ()
            chosen = [n for n in items if n in swaps or n.nodeid in canaries or n in around]
            work = _Round(chosen, swaps, self._recorder)
            self.outcomes.append(self._in_child(work) if self._fork else work.run())

    def _in_child(self, work):
        read, write = os.pipe()
        leave, send = os._exit, self._sender(write)
        child = fork()
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
            with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored
                os.waitpid(child, 0)


class _Round:
    def __init__(self, items, swaps, recorder):
        self._items, self._swaps, self._recorder = items, swaps, recorder

    def run(self):
        """{"statuses", "finished", "canaries_ok", "tampered"} of one round."""
        recorder, items = self._recorder, self._items
        recorder.restart({item.nodeid for item in items})
        recorder.play_round(items, self._swaps)
        recorder.check()
        return recorder.summary()


class Lead:
    """Has the tests themselves run in a fork made after collection, so that what is left can play the rounds."""

    def __init__(self, asks, pass_on, confirm, sender, code):
        """
        Args:
            asks: a descriptor from which the rounds come, sized JSON; nothing where none are wanted.
            pass_on: sends on what the fork has said, as it is.
            confirm: says that the fork has ended as it was to.
            code: the exit code that the fork has to end with.
        """
        self._asks, self._pass_on, self._confirm, self._sender, self._code = asks, pass_on, confirm, sender, code
        self.send: Any = None
        """In the fork: what its record goes out by."""

    def ask(self):
        """Fork, and wait. Returns None where the session goes on here, with its tests: in the fork, or where a fork
        would be something else than this process. Else what rounds there are to be ({}: none)."""
        if not bears_fork():
            return None
        read, write = os.pipe()
        leave, verdict = os._exit, os.waitstatus_to_exitcode if hasattr(os, "waitstatus_to_exitcode") else _exit_code
        child = fork()
        if not child:
            os.close(read)
            os.close(self._asks)
            os.setpgid(0, 0)  # a group of its own, as a process that was started has
            self.send = self._sender(write)
            return None
        os.close(write)
        said, status = _all_of(read, child)
        os.close(read)
        with contextlib.suppress(OSError):
            os.killpg(child, signal.SIGKILL)
        self._pass_on(said)
        ended = verdict(status)
        if ended < 0:  # this process is seen to end as that one did
            with contextlib.suppress(OSError):
                signal.signal(-ended, signal.SIG_DFL)
            os.kill(os.getpid(), -ended)
        if ended != self._code or said.count(b"\n") != 1:
            leave(ended if ended >= 0 else 99)
        self._confirm()
        size = int.from_bytes(take(self._asks, 4), "big")
        return loads(take(self._asks, size).decode()) if size else {}


def fork():
    """``os.fork``, and the child's random numbers go on where this process is: the module would seed itself anew."""
    state = random.getstate()
    child = os.fork()
    if not child:
        random.setstate(state)
    return child


def bears_fork():
    """Whether a fork of this process is what the process itself is: no threads, no children, no timers, nothing open
    that two processes cannot have in common, and its end can be waited for."""
    me = "/proc/self"
    try:
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            return False
        if len(os.listdir(f"{me}/task")) > 1 or any(any(signal.getitimer(which)) for which in range(3)):
            return False
        with open(f"{me}/task/{os.getpid()}/children", encoding="ascii") as file:
            if file.read().strip():
                return False
        for name in os.listdir(f"{me}/fd"):
            try:
                kind = os.readlink(f"{me}/fd/{name}")
            except FileNotFoundError:
                continue
            if kind.startswith(("socket:", "anon_inode:")):
                return False
    except OSError:
        return False
    return True


def _exit_code(status):
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _all_of(descriptor, child):
    """(what a child sends until it ends, its wait status). What it leaves running may keep the pipe open."""
    data, status = b"", None
    while True:
        ready, _, _ = select.select([descriptor], [], [], 0 if status is not None else 0.02)
        piece = READ(descriptor, 1 << 16) if ready else b""
        data += piece
        if status is not None and not piece:
            return data, status
        if ready and not piece:
            return data, os.waitpid(child, 0)[1]
        if status is None and not ready:
            ended, found = os.waitpid(child, os.WNOHANG)
            status = found if ended else None


def _read_until(descriptor, deadline):
    """What a child sends: one line, without its end; b"" where it sends none in time, or more."""
    data = b""
    while True:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        piece = READ(descriptor, 1 << 16) if ready else b""
        if not ready:
            return b""
        data += piece
        if not piece or b"\n" in piece:  # what the child has left running may keep the pipe open
            return data.partition(b"\n")[0]
