"""Whose time an episode's clock takes: while a policy's server is being asked it is the infrastructure's."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class Clock:
    """What the clock of one episode has met.

    Attributes:
        asked: what was being asked when a cancellation came, in words; None: nothing was, or it has been answered.
    """

    asked: str | None = None


_CLOCK: ContextVar[Clock | None] = ContextVar("verigym_clock", default=None)


@contextmanager
def clocked() -> Iterator[Clock]:
    """The clock of the episode that runs inside."""
    clock = Clock()
    token = _CLOCK.set(clock)
    try:
        yield clock
    finally:
        _CLOCK.reset(token)


@dataclass(slots=True)
class Question:
    """What is being asked of a server.

    Attributes:
        url: of the server.
        problem: with the last attempt; "" where it has not answered yet.
    """

    url: str
    problem: str = ""

    def __str__(self) -> str:
        return f"{self.url} was being asked" + (f"; its last trouble: {self.problem}" if self.problem else "")


@contextmanager
def asking(url: str) -> Iterator[Question]:
    """Inside, an answer is waited for that the agent has no part in: the server's, its line's, or another try's.

    Whatever asks a server for a turn waits in here, so that an episode whose clock runs out meanwhile is a failure of
    the infrastructure, whichever of the two deadlines comes first.
    """
    question = Question(url)
    try:
        yield question
    except asyncio.CancelledError:
        clock = _CLOCK.get()
        if clock is not None and clock.asked is None:  # the innermost knows most
            clock.asked = str(question)
        raise
