"""A container as its user sees it."""

import errno
import os
from collections.abc import Awaitable, Callable
from typing import Any

from .container_reset import Resetter
from .disk_watch import DiskWatch
from .frames import Frames
from .session import GuestSandbox
from .types import SandboxSpec


class ContainerSandbox(GuestSandbox):
    """A running container. Where a watch bounds its disk, a call begins only when the last measurement is done."""

    def __init__(
        self,
        stream: Frames,
        spec: SandboxSpec,
        *,
        watch: DiskWatch | None,
        resetter: Resetter,
        give_back: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(stream, spec)
        self.stream, self.resetter, self._watch, self._give_back = stream, resetter, watch, give_back
        self._closed = False

    async def aclose(self) -> None:
        closed, self._closed = self._closed, True
        await self.stream.aclose()
        if self._watch is not None:
            await self._watch.aclose()
        if not closed:
            await self._give_back()

    async def _ask(self, request: dict[str, Any], stdin: bytes, *, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        kind, *arguments = request.get("call", ("",))
        if self._watch is not None and kind != "read":
            await self._watch.settle()
            if self._watch.over and kind in ("write", "unpack"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), arguments[0])
        return await super()._ask(request, stdin, timeout_s=timeout_s)
