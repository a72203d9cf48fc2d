"""The disk limit of a container whose storage driver has none: what it wrote is measured when the disk has filled.

The guest tells when more of the disk is in use than when it last told, whoever wrote it. Then it is measured how much
this container has written, and what exceeds the limit ends what runs, with "disk" as the reason. What a process
can write between two looks (a tenth of a second, and the time it takes to count) is not bounded.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .frames import Frames
from .launch import num_inodes
from .types import Limits

MIN_BETWEEN_S = 0.2


class DiskWatch:
    """Watches one container."""

    def __init__(self, written: Callable[[bool], Awaitable[tuple[int, int]]], frames: Frames, limits: Limits) -> None:
        """
        Args:
            written: (bytes, files) that the container wrote; is told whether files are to be counted.
        """
        self._written, self._frames = written, frames
        self._most_bytes, self._most_files = limits.disk_mib << 20, num_inodes(limits)
        self._many_files = False
        self._look: asyncio.Task[None] | None = None
        self._again = False
        self.over = False
        """Whether it had written too much when it was last measured."""
        frames.on_notice = self._noticed

    async def settle(self) -> None:
        """Wait for the measurement that is under way, if any; measure again where it was over."""
        if self.over and self._look is None:
            self._noticed({})
        if self._look is not None:
            await asyncio.shield(self._look)

    async def aclose(self) -> None:
        """End the measurement that is under way."""
        self._frames.on_notice = None
        if self._look is not None:
            self._look.cancel()
            await asyncio.wait([self._look])

    def _noticed(self, header: dict[str, Any]) -> None:
        self._many_files = self._many_files or header.get("what") == "files"
        if self._look is not None:
            self._again = True
        else:
            self._look = asyncio.ensure_future(self._measure())

    async def _measure(self) -> None:
        try:
            while True:
                self._again = False
                was, self.over = self.over, await self._exceeded()
                if self.over and not was:
                    self._frames.tell({"do": "kill", "why": "disk"})
                if not self._again:
                    return
                await asyncio.sleep(MIN_BETWEEN_S)
        finally:
            self._look = None

    async def _exceeded(self) -> bool:
        """Whether the container has written too much."""
        # An empty file takes no bytes, and some count files slowly: only where there may be many.
        num_bytes, num_files = await self._written(self._many_files)
        self._many_files = num_files > self._most_files
        return num_bytes > self._most_bytes or self._many_files
