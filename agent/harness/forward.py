"""A port of this machine shown inside a sandbox that has no network, through a process's standard streams."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

from ...envs.sandbox.launch import base_python
from ...envs.sandbox.runtime import runtime_python
from ...envs.sandbox.types import Process, Sandbox
from ...errors import SandboxError

START_S = 30.0
MOST_FRAME = 1 << 20


@asynccontextmanager
async def forwarded(sandbox: Sandbox, port: int) -> AsyncIterator[int]:
    """The port, inside the sandbox, whose connections reach a port of 127.0.0.1 here; only as long as the block.

    The sandbox gets no network: a process in it listens on its own loopback and passes bytes through its pipes, and
    this side connects to that one port and to nothing else.

    Raises:
        SandboxError: no Python runs in the sandbox, or it does not start in time.
    """
    process, frames, inside = await _start(sandbox)
    pump = asyncio.create_task(_Pump(process, frames, port).run())
    try:
        yield inside
    finally:
        pump.cancel()
        process.kill()
        await asyncio.gather(pump, return_exceptions=True)


@lru_cache(maxsize=1)
def _source() -> str:
    return (Path(__file__).parent / "forward_guest.py").read_text(encoding="utf-8")


async def _start(sandbox: Sandbox) -> "tuple[Process, _Frames, int]":
    problems = []
    # The guest's own Python, in a local sandbox and in a container; then any that the image has.
    for python in ([base_python()[0]], runtime_python(), ["python3"]):
        process = await sandbox.astart([*python, "-S", "-E", "-c", _source()])
        frames = _Frames(process)
        try:
            async with asyncio.timeout(START_S):
                first = await frames.next()
        except TimeoutError:
            first = None
            process.kill()
        if first is not None and first[1].isdigit():
            return process, frames, int(first[1])
        ended = await process.wait()
        problems.append(f"{python[0]}: {ended.stderr.decode(errors='replace').strip()[-200:] or ended.exit_code}")
    raise SandboxError(f"the gateway cannot be reached from the sandbox, no Python runs in it ({'; '.join(problems)})")


class _Frames:
    """Frames of the process's standard output, see ``forward_guest``."""

    def __init__(self, process: Process) -> None:
        self._process, self._held = process, b""

    async def next(self) -> tuple[int, bytes] | None:
        """(connection, bytes); None at the end. Raises SandboxError where it is no frame."""
        while True:
            if len(self._held) >= 8:
                number, size = struct.unpack(">II", self._held[:8])
                if size > MOST_FRAME:
                    raise SandboxError("the process that forwards the gateway's port broke its protocol")
                if len(self._held) >= 8 + size:
                    piece, self._held = self._held[8 : 8 + size], self._held[8 + size :]
                    return number, piece
            more = await self._process.read()
            if not more:
                return None
            self._held += more


class _Pump:
    def __init__(self, process: Process, frames: _Frames, port: int) -> None:
        self._process, self._frames, self._port = process, frames, port
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        try:
            while (frame := await self._frames.next()) is not None:
                await self._pass(*frame)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _pass(self, number: int, piece: bytes) -> None:
        writer = self._writers.get(number)
        if not piece:
            if writer is not None:
                writer.close()
            return
        if number not in self._tasks:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers[number] = writer
            self._tasks[number] = asyncio.create_task(self._back(number, reader, writer))
        if writer is not None and not writer.is_closing():
            writer.write(piece)

    async def _back(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                self._process.write(struct.pack(">II", number, len(data)) + data)
            self._process.write(struct.pack(">II", number, 0))
        except (ConnectionError, SandboxError):
            pass
        finally:
            writer.close()
