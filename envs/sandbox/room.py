"""So many boxes at once, and no more: whoever wants one waits until there is room."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from .per_loop import PerLoop

T = TypeVar("T")

LOOK_AGAIN_S = 1.0


class Room:
    """Where those wait who want a box, for any number of event loops."""

    def __init__(self) -> None:
        self._waiting = PerLoop(asyncio.Condition)
        self.make_room: Callable[[], Awaitable[bool]] | None = None
        """Called when there is none; whether it has closed a box that nobody uses."""

    async def wait_for(self, take: Callable[[], T | None]) -> T:
        """What ``take`` gives as soon as it is something."""
        while (taken := take()) is None:
            if self.make_room is not None and await self.make_room():
                continue
            waiting = self._waiting.get()
            async with waiting:
                try:
                    await asyncio.wait_for(waiting.wait(), LOOK_AGAIN_S)  # of another loop nobody tells here
                except TimeoutError:
                    pass
        return taken

    async def look_again(self) -> None:
        """Wake one that waits."""
        waiting = self._waiting.get()
        async with waiting:
            waiting.notify()
