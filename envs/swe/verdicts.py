"""Verdicts that are had already: a patch of a task is graded once a process, also where several ask at once."""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from ..sandbox.per_loop import PerLoop

T = TypeVar("T")
Key = tuple[str, ...]


@dataclass(slots=True)
class _Turn:
    """Those who want one verdict; one at a time may grade."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    num: int = 0


class Verdicts(Generic[T]):
    """The last so many. Samples of one task often hand in the same patch, at about the same time: they wait for the
    first one's grading; where that fails or is cancelled the next in line grades."""

    def __init__(self, most: int) -> None:
        """
        Args:
            most: verdicts kept; the one asked for least lately goes first.
        """
        self._most, self._known, self._changing = most, OrderedDict[Key, T](), threading.Lock()
        self._turns: PerLoop[dict[Key, _Turn]] = PerLoop(dict)

    def __len__(self) -> int:
        return len(self._known)

    async def once(self, key: Key, grade: Callable[[], Awaitable[T]]) -> T:
        """The verdict of a key, by ``grade`` where it is not known; what that raises is raised, and kept for nobody."""
        turns = self._turns.get()
        turn = turns.setdefault(key, _Turn())
        turn.num += 1
        try:
            async with turn.lock:
                found = self._known.get(key)
                if found is None:
                    found = await grade()
                self._keep(key, found)
                return found
        finally:
            turn.num -= 1
            if not turn.num:
                del turns[key]

    def _keep(self, key: Key, verdict: T) -> None:
        with self._changing:
            self._known[key] = verdict
            self._known.move_to_end(key)
            while len(self._known) > self._most:
                self._known.popitem(last=False)
