"""The disk limit of a container whose storage driver has none: what it wrote is measured when the disk has filled.

The guest tells when more of the disk is in use than when it last told, whoever wrote it. Then the engine is asked how
much this container has written, and what exceeds the limit ends what runs, with "disk" as the reason. What a process
can write between two looks (a tenth of a second, and the time the engine takes to count) is not bounded.
"""

import asyncio
from typing import Any

from docker.errors import NotFound

from ...errors import SandboxError
from .engine import Engine
from .frames import Frames
from .launch import num_inodes
from .types import Limits

MIN_BETWEEN_S = 0.2


class DiskWatch:
    """Watches one container."""

    def __init__(self, engine: Engine, container: str, frames: Frames, limits: Limits) -> None:
        self._engine, self._container, self._frames = engine, container, frames
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
        """Whether the container has written too much; a container that is gone has not."""
        api, call = self._engine.api, self._engine.call
        try:
            found = await call("measuring a container", api.containers, filters={"id": self._container}, size=True)
            if found and (found[0].get("SizeRw") or 0) > self._most_bytes:
                return True
            # An empty file takes no bytes, and the engine counts files slowly: only where there may be many.
            if self._many_files:
                changed = await call("measuring a container", api.diff, self._container)
                self._many_files = len(changed or ()) > self._most_files
        except (SandboxError, NotFound):
            return False
        return self._many_files
