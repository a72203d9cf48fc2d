"""Ports of a sandbox that has no network, whose connections handlers on this side serve, through a process's pipes."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from pathlib import Path

from ....errors import SandboxError
from ..launch import base_python
from ..runtime import runtime_python
from ..types import Process, Sandbox
from .guest_forward import DATA, END, HEADER, MOST_CONNECTIONS, OPEN, READY, TOOK, WINDOW

START_S = 30.0
MOST_FRAME = 1 << 20
PIECE = 65536
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0
"""Before a process that ended is started again; the pause doubles until it has lived for a while."""

Handler = Callable[["Connection"], Awaitable[None]]
"""Serves one connection; when it returns, the connection ends."""


class Breach(Exception):
    """What is inside did not keep to the protocol: it is no process of ours any more."""


class Connection:
    """One connection from inside, seen from here."""

    def __init__(self, number: int, send: Callable[[int, int, bytes], None]) -> None:
        self._number, self._send = number, send
        self._arrived, self._changed = bytearray(), asyncio.Event()
        self._untaken, self._ended, self.is_over = 0, False, False

    async def read(self) -> bytes:
        """The next bytes, at least one; b"" at their end."""
        while not self._arrived and not self._ended:
            await self._wait()
        data = bytes(self._arrived)
        self._arrived.clear()
        if data:
            self._send(TOOK, self._number, struct.pack(">I", len(data)))
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; waits while the client does not take them."""
        view = memoryview(data)
        while view:
            room = min(PIECE, WINDOW - self._untaken)
            if room <= 0:
                await self._wait()
                continue
            self._untaken += len(view[:room])
            self._send(DATA, self._number, bytes(view[:room]))
            view = view[room:]

    def end(self) -> None:
        """Tell the client that there is no more."""
        if not self.is_over:
            self.is_over = True
            self._send(END, self._number, b"")

    def take(self, kind: int, piece: bytes) -> None:
        """A frame of this connection. Raises Breach."""
        if kind == DATA:
            if len(self._arrived) + len(piece) > WINDOW or self._ended:
                raise Breach("more bytes than were asked for")
            if not self.is_over:
                self._arrived += piece
        elif kind == TOOK and len(piece) == 4:
            self._untaken -= struct.unpack(">I", piece)[0]
            if self._untaken < 0:
                raise Breach("took more than was sent")
        elif kind == END:
            self._ended = True
        else:
            raise Breach(f"a frame of the kind {kind}")
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def to_port(port: int) -> Handler:
    """A handler that passes bytes to and from a port of 127.0.0.1 here."""

    async def serve(connection: Connection) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return
        await pass_bytes(connection, reader, writer)

    return serve


async def pass_bytes(
    connection: Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[int, int]:
    """Both ways until the other side has no more; then what is still to be sent is lost.

    Returns:
        (bytes sent there, bytes that came back).
    """
    sent = 0

    async def there() -> None:
        nonlocal sent
        while data := await connection.read():
            sent += len(data)
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    task, received = asyncio.ensure_future(there()), 0
    try:
        while data := await reader.read(PIECE):
            received += len(data)
            await connection.write(data)
    except OSError:
        pass
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        writer.close()
    return sent, received


@asynccontextmanager
async def forwarded(sandbox: Sandbox, routes: Sequence[tuple[int, Handler]]) -> AsyncIterator[list[int]]:
    """Ports inside the sandbox, one a route, as long as the block.

    A process in it listens on its own loopback and passes bytes through its pipes; there is no other way than to the
    handlers. It is started again, on the same ports, where it ended: with a command that ran out of time, or killed.

    Args:
        routes: (the port to listen on, 0 for any; who serves its connections).
    Raises:
        SandboxError: no Python runs in the sandbox, a port is taken, or the process does not start in time.
    """
    forwarder = _Forwarder(sandbox, [handler for _, handler in routes])
    ports = await forwarder.start([port for port, _ in routes])
    running = asyncio.create_task(forwarder.run())
    try:
        yield ports
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@lru_cache(maxsize=1)
def _source() -> str:
    return (Path(__file__).parent / "guest_forward.py").read_text(encoding="utf-8")


class _Forwarder:
    def __init__(self, sandbox: Sandbox, handlers: Sequence[Handler]) -> None:
        self._sandbox, self._handlers = sandbox, handlers
        # The guest's own Python, in a local sandbox and in a container; then any that the image has.
        self._pythons: list[Sequence[str]] = [[base_python()[0]], runtime_python(), ["python3"]]
        self._ports: list[int] = []
        self._connections: dict[int, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, ports: Sequence[int]) -> list[int]:
        """Start the process; the ports that it listens on. Raises SandboxError."""
        problems = []
        for python in self._pythons:
            command = [*python, "-S", "-E", "-c", _source(), *map(str, ports)]
            process = await self._sandbox.astart(command, cwd="/")
            frames = _Frames(process)
            try:
                async with asyncio.timeout(START_S):
                    first = await frames.next()
            except (TimeoutError, Breach):
                first = None
                process.kill()
            if first is not None and first[0] == READY:
                self._process, self._frames, self._pythons = process, frames, [python]
                self._ports = [int(port) for port in first[2].split()]
                return self._ports
            ended = await process.wait()
            problems.append(f"{python[0]}: {ended.stderr.decode(errors='replace').strip()[-200:] or ended.exit_code}")
        raise SandboxError(f"no process that forwards ports can be started in the sandbox ({'; '.join(problems)})")

    async def run(self) -> None:
        pause_s, loop = FIRST_PAUSE_S, asyncio.get_running_loop()
        try:
            while True:
                began = loop.time()
                try:
                    await self._serve()
                except Breach:
                    pass
                await self._end()
                pause_s = FIRST_PAUSE_S if loop.time() - began > LONGEST_PAUSE_S else min(2 * pause_s, LONGEST_PAUSE_S)
                await asyncio.sleep(pause_s)
                await self._start_again()
        except SandboxError:
            return  # it is gone, and its ports with it
        finally:
            await self._end()

    async def _start_again(self) -> None:
        try:
            await self.start(self._ports)
        except SandboxError:
            # Its ports may be somebody else's now. Where the sandbox itself is gone, this says so again.
            await asyncio.sleep(LONGEST_PAUSE_S)
            await self.start(self._ports)

    async def _serve(self) -> None:
        while (frame := await self._frames.next()) is not None:
            kind, number, piece = frame
            if kind == OPEN:
                self._open(number, piece)
            elif number in self._connections:
                self._connections[number].take(kind, piece)

    def _open(self, number: int, piece: bytes) -> None:
        if len(self._tasks) >= 2 * MOST_CONNECTIONS or number in self._connections or not piece.isdigit():
            raise Breach("a connection that cannot be")
        if int(piece) >= len(self._handlers):
            raise Breach("a route that there is not")
        connection = self._connections[number] = Connection(number, self._send)
        task = asyncio.create_task(self._handle(connection, self._handlers[int(piece)]))
        self._tasks.add(task)
        task.add_done_callback(lambda done: (self._tasks.discard(done), self._connections.pop(number, None)))

    async def _handle(self, connection: Connection, handler: Handler) -> None:
        try:
            await handler(connection)
        except (OSError, SandboxError):
            pass  # the client sees the end
        finally:
            connection.end()

    def _send(self, kind: int, number: int, data: bytes) -> None:
        self._process.write(struct.pack(HEADER, kind, number, len(data)) + data)

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._connections.clear()
        self._process.kill()


class _Frames:
    """Frames of the process's standard output, see ``guest_forward``."""

    def __init__(self, process: Process) -> None:
        self._process, self._held = process, b""

    async def next(self) -> tuple[int, int, bytes] | None:
        """(kind, connection, bytes); None at the end. Raises Breach where it is no frame."""
        size_of_header = struct.calcsize(HEADER)
        while True:
            if len(self._held) >= size_of_header:
                kind, number, size = struct.unpack(HEADER, self._held[:size_of_header])
                if size > MOST_FRAME:
                    raise Breach("a frame that is too long")
                if len(self._held) >= size_of_header + size:
                    piece = self._held[size_of_header : size_of_header + size]
                    self._held = self._held[size_of_header + size :]
                    return kind, number, piece
            more = await self._process.read()
            if not more:
                return None
            self._held += more
