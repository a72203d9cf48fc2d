"""Whether an event loop that many episodes share stands still: for how long, how often, and over what."""

import asyncio
import logging
import threading
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from ..stacks import frame_of

logger = logging.getLogger(__name__)

HELD_S = 0.05
"""So long no callback may keep a loop: while one does, no other episode of the process goes on."""

_EVERY_S = 0.02
_LOOK_S = 0.01
_RUN = asyncio.events.Handle._run.__code__
_PACKAGE = str(Path(__file__).resolve().parents[2])


@dataclass(slots=True)
class Held:
    """How a loop was kept.

    Attributes:
        count: callbacks that kept it for more than ``HELD_S``.
        longest_s: wall-clock seconds of the longest, to ``_LOOK_S``.
        cpu_s: processor seconds of the loop's thread in all of them: the rest was waiting, for a disk or a core.
        round_s: the longest that anybody waited for the loop: one callback, or many that were ready at once.
        places: "file:line function" of the code that kept it -> times it was seen.
    """

    count: int = 0
    longest_s: float = 0.0
    cpu_s: float = 0.0
    round_s: float = 0.0
    places: Counter[str] = field(default_factory=Counter)

    def metrics(self, prefix: str = "rollout") -> dict[str, float]:
        """ "PREFIX/loop_held/count", "PREFIX/loop_held_seconds/max", "PREFIX/loop_held_cpu_seconds/total" and
        "PREFIX/loop_round_seconds/max"."""
        return {
            f"{prefix}/loop_held/count": float(self.count),
            f"{prefix}/loop_held_seconds/max": self.longest_s,
            f"{prefix}/loop_held_cpu_seconds/total": self.cpu_s,
            f"{prefix}/loop_round_seconds/max": self.round_s,
        }


class LoopWatch:
    """Watches the running loop from a thread: every 20 ms it asks to be called back, and while it waits it looks
    whether one and the same callback keeps the loop or many take their turns.

    A context manager, entered on the loop, any number of times one after another. On a busy machine a loop also stands
    because its thread gets no core; ``Held.cpu_s`` tells the two apart.
    """

    def __init__(self) -> None:
        self._held = Held()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._closing = threading.Event()
        watched = (asyncio.get_running_loop(), threading.get_ident(), self._closing)
        threading.Thread(target=self._watch, args=watched, name="verigym-loop-watch", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.set()
        held = self.peek()
        if held.count:
            said = ", ".join(f"{place} ({times})" for place, times in held.places.most_common(3))
            logger.info("the event loop stood %d times, for up to %.2f s: %s", held.count, held.longest_s, said)

    def peek(self) -> Held:
        """What was seen since the last ``take``."""
        with self._lock:
            return self._held

    def take(self) -> Held:
        """``peek``, beginning anew."""
        with self._lock:
            held, self._held = self._held, Held()
        return held

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int, closing: threading.Event) -> None:
        clock = time.pthread_getcpuclockid(thread) if hasattr(time, "pthread_getcpuclockid") else None
        while not closing.wait(_EVERY_S):
            came = threading.Event()
            asked = time.monotonic()
            try:
                loop.call_soon_threadsafe(came.set)
            except RuntimeError:  # the loop is closed
                return
            running = _Running(thread, clock)
            while not came.wait(_LOOK_S):
                if loop.is_closed():
                    return
                self._note(running.look())
            self._note(running.end())
            with self._lock:
                self._held.round_s = max(self._held.round_s, time.monotonic() - asked)

    def _note(self, kept: "tuple[str, float, float] | None") -> None:
        if kept is not None:
            place, seconds, cpu_s = kept
            with self._lock:
                self._held.count += 1
                self._held.longest_s = max(self._held.longest_s, seconds)
                self._held.cpu_s += cpu_s
                self._held.places[place] += 1


class _Running:
    """The callback that a loop's thread is in, while it is looked at again and again."""

    def __init__(self, thread: int, clock: int | None) -> None:
        self._thread, self._clock = thread, clock
        self._begin()

    def _begin(self) -> None:
        self._frame, self._since, self._used, self._place = self._callback(), time.monotonic(), _cpu(self._clock), ""

    def _callback(self) -> FrameType | None:
        """The call of the loop that runs one callback: another object for each, while it is held here."""
        frame = frame_of(self._thread)
        while frame is not None and frame.f_code is not _RUN:
            frame = frame.f_back
        return frame

    def look(self) -> tuple[str, float, float] | None:
        """(place, seconds, processor seconds) of a callback that kept the loop too long and has just ended."""
        if self._frame is not None and self._callback() is self._frame:
            if not self._place and time.monotonic() - self._since > HELD_S:
                self._place = _place_of(self._thread)
            return None
        ended = self.end()
        self._begin()
        return ended

    def end(self) -> tuple[str, float, float] | None:
        """``look``, where nothing of what was seen runs any more."""
        if not self._place:
            return None
        return self._place, time.monotonic() - self._since, _cpu(self._clock) - self._used


def _cpu(clock: int | None) -> float:
    try:
        return 0.0 if clock is None else time.clock_gettime(clock)
    except OSError:  # the thread has ended
        return 0.0


def _place_of(thread: int) -> str:
    """The innermost code of this package that a thread is in; of none the innermost of all."""
    frame = frame_of(thread)
    if frame is None:
        return "nowhere"
    stack = traceback.extract_stack(frame)
    own = [one for one in stack if one.filename.startswith(_PACKAGE)]
    found = (own or stack)[-1]
    return f"{found.filename.rpartition('/')[2]}:{found.lineno} {found.name}"


def stacks_of_tasks() -> str:
    """Where every task of the running loop waits, for a message about an episode that stands still."""
    lines = []
    for task in sorted(asyncio.all_tasks(), key=lambda one: one.get_name()):
        lines.append(f"{task.get_name()}: {task!r}")
        codes = [(frame.f_code, frame.f_lineno) for frame in task.get_stack()]
        lines += [f"    {code.co_filename}:{line} {code.co_name}" for code, line in codes]
    return "\n".join(lines)
