"""Asynchronous hooks, driven step by step: one that keeps the event loop, or that will not be cancelled, ends too."""

import asyncio
import logging
import os
import threading
import time
import types
from collections.abc import Coroutine, Generator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ..stacks import frame_of
from .deadline import Deadline
from .interrupting import raise_in, take_back

logger = logging.getLogger(__name__)

_LOOK_S = 0.1


class LoopHeld(BaseException):
    """Raised in a hook that kept the event loop for longer than it may."""


@dataclass(eq=False, slots=True)
class _Step:
    """What a thread's loop runs now: one step of a hook, from one ``await`` to the next."""

    hook: str
    limit_s: float
    thread: int = field(default_factory=threading.get_ident)
    since: float = field(default_factory=time.monotonic)
    interrupted: bool = False


class _Watch:
    """A thread that looks at the steps of this process, as long as there are hooks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._steps: dict[int, _Step] = {}
        self._num_hooks = 0
        self._is_running = False

    def enter(self) -> None:
        with self._lock:
            self._num_hooks += 1
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, name="verigym-hook-watch", daemon=True).start()

    def leave(self) -> None:
        with self._lock:
            self._num_hooks -= 1

    def begin(self, step: _Step) -> None:
        self._steps[step.thread] = step

    def end(self, step: _Step) -> None:
        with self._lock:
            self._steps.pop(step.thread, None)
            if step.interrupted:  # it may not have been met yet
                take_back(step.thread)

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_S)
            with self._lock:
                if not self._num_hooks:
                    self._is_running = False
                    return
                for step in list(self._steps.values()):
                    if not step.interrupted and time.monotonic() - step.since > step.limit_s:
                        self._interrupt(step)

    def _interrupt(self, step: _Step) -> None:
        step.interrupted = True
        raise_in(step.thread, LoopHeld)
        frame = frame_of(step.thread)
        place = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" if frame else "nowhere"
        logger.error(
            "%s keeps the event loop, at %s, and has for %g s: nothing else goes on meanwhile. Await there, or make it "
            "synchronous: then it runs on a thread, and can be left to itself",
            step.hook,
            place,
            step.limit_s,
        )


@lru_cache(maxsize=1)
def _watch(process: int) -> _Watch:
    """A forked process has none of its parent's threads."""
    return _Watch()


@types.coroutine
def stepped(coroutine: Coroutine[Any, Any, Any], hook: str, deadline: Deadline) -> Generator[Any, Any, Any]:
    """What the coroutine returns. One that goes on after it was cancelled twice is closed.

    Raises:
        LoopHeld: one step of it took longer than the whole may.
    """
    watch = _watch(os.getpid())
    watch.enter()
    send: Any = None
    problem: BaseException | None = None
    try:
        while True:
            step = _Step(hook, deadline.limit_s)
            try:
                watch.begin(step)
                yielded = coroutine.send(send) if problem is None else coroutine.throw(problem)
            except StopIteration as stop:
                return stop.value
            finally:
                watch.end(step)
            send = problem = None
            try:
                send = yield yielded
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if deadline.is_final and task is not None:
                    task.uncancel()  # the second one; the first is its who waits for the hook
                    raise
                problem = error
            except BaseException as error:
                problem = error
    finally:
        watch.leave()
        _close(coroutine)


def _close(coroutine: Coroutine[Any, Any, Any]) -> None:
    try:
        coroutine.close()
    except RuntimeError:  # it goes on even so: nobody drives it any more
        pass
