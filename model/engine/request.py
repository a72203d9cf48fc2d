"""One caller's request, and how what comes of it reaches the caller's loop."""

import asyncio
import logging
from typing import Generic, TypeVar

from ...errors import PolicyError

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Request(Generic[T]):
    """What a caller waits for, in one part or several. ``abandoned``: the caller waits no more."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parts: asyncio.Queue[T | PolicyError] = asyncio.Queue()
        self.abandoned = False

    def answer(self, part: T | PolicyError) -> None:
        """Hand the caller a part, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._parts.put_nowait, part)
        except RuntimeError:  # the caller's loop is closed: nobody waits
            logger.debug("a caller's loop closed before its answer")

    async def next(self) -> T:
        """The next part. Raises the PolicyError where there will be none."""
        part = await self._parts.get()
        if isinstance(part, PolicyError):
            raise part
        return part
