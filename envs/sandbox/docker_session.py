"""A container as its user sees it."""

import errno
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence

from .container_reset import Resetter
from .disk_watch import DiskWatch
from .session import GuestSandbox
from .stream import ContainerStream
from .types import CommandResult, ProcessResult, SandboxSpec


class ContainerSandbox(GuestSandbox):
    """A running container. Where a watch bounds its disk, a call begins only when the last measurement is done."""

    def __init__(
        self,
        stream: ContainerStream,
        spec: SandboxSpec,
        *,
        watch: DiskWatch | None,
        resetter: Resetter,
        give_back: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(stream, spec)
        self.stream, self.resetter, self._watch, self._give_back = stream, resetter, watch, give_back
        self._closed = False

    async def aexec(self, command: str, *, timeout_s: float | None = None) -> CommandResult:
        await self._settled()
        return await super().aexec(command, timeout_s=timeout_s)

    async def arun(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout_s: float | None = None,
        output_bytes: int = 16 << 20,
    ) -> ProcessResult:
        await self._settled()
        return await super().arun(argv, cwd=cwd, env=env, stdin=stdin, timeout_s=timeout_s, output_bytes=output_bytes)

    async def write_file(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        await self._writable(path)
        await super().write_file(path, data, mode=mode)

    async def put_archive(self, archive: bytes, dest: str) -> None:
        await self._writable(dest)
        await super().put_archive(archive, dest)

    async def aclose(self) -> None:
        closed, self._closed = self._closed, True
        await self.stream.aclose()
        if self._watch is not None:
            await self._watch.aclose()
        if not closed:
            await self._give_back()

    async def _settled(self) -> None:
        if self._watch is not None:
            await self._watch.settle()

    async def _writable(self, path: str) -> None:
        await self._settled()
        if self._watch is not None and self._watch.over:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
