"""The time that an environment's hook may take: others' time, such as a model's that it asks, is not counted."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

INSIST_S = 5.0
"""Seconds after which a hook that was cancelled, and goes on, is not waited for."""


class Deadline:
    """Ends the ``asyncio.timeout`` block that it is given once ``limit_s`` seconds have been counted.

    It can be paused from any thread, so that a hook inside a hook, and a speaker that a hook asks, have clocks of
    their own.
    """

    def __init__(self, limit_s: float, scope: asyncio.Timeout) -> None:
        self.limit_s, self._scope = limit_s, scope
        self._lock = threading.Lock()
        self._counted, self._since, self._num_pauses = 0.0, time.monotonic(), 0
        self.is_final = False
        """Whether what was cancelled has been cancelled again, in vain."""
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._timer = self._loop.call_later(limit_s, self._look)

    def _left(self) -> float:
        with self._lock:
            running = 0.0 if self._num_pauses else time.monotonic() - self._since
            return self.limit_s - self._counted - running

    def _look(self) -> None:
        """The time may be up; what was paused meanwhile is waited for anew."""
        left = self._left()
        if left <= 0.0:
            self._scope.reschedule(self._loop.time())
            self._timer = self._loop.call_later(INSIST_S, self._insist)
        else:
            self._timer = self._loop.call_later(left, self._look)

    def _insist(self) -> None:
        self.is_final = True
        if self._task is not None:
            self._task.cancel()

    def pause(self) -> None:
        with self._lock:
            if not self._num_pauses:
                self._counted += time.monotonic() - self._since
            self._num_pauses += 1

    def go_on(self) -> None:
        with self._lock:
            self._num_pauses -= 1
            self._since = time.monotonic()

    def close(self) -> None:
        self._timer.cancel()


_CURRENT: ContextVar[Deadline | None] = ContextVar("verigym_hook_deadline", default=None)


@contextmanager
def counted(limit_s: float | None, scope: asyncio.Timeout) -> Iterator[Deadline | None]:
    """Inside, the time of a hook is counted, and that of the hook that called it is not.

    Args:
        limit_s: seconds; None: it may take as long as it does.
    """
    with uncounted():
        deadline = None if limit_s is None else Deadline(limit_s, scope)
        token = _CURRENT.set(deadline)
        try:
            yield deadline
        finally:
            _CURRENT.reset(token)
            if deadline is not None:
                deadline.close()


@contextmanager
def uncounted() -> Iterator[None]:
    """Inside, the hook that runs waits for somebody else."""
    outer = _CURRENT.get()
    if outer is None:
        yield
        return
    outer.pause()
    try:
        yield
    finally:
        outer.go_on()
