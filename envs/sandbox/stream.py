"""The guest as a container's first process: one attached socket carries the frames."""

import asyncio
import logging

from docker.errors import NotFound

from ...errors import SandboxError
from .engine import Engine
from .frames import Frames

logger = logging.getLogger(__name__)

REMOVE_S = 60.0
STDOUT, STDERR = 1, 2


class ContainerStream(Frames, asyncio.Protocol):
    """Requests to the first process of a container, which ends with its input, and is removed when it has ended."""

    def __init__(self, engine: Engine, container: str) -> None:
        super().__init__()
        self._engine, self.container = engine, container
        self._transport: asyncio.Transport | None = None
        self._raw = bytearray()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, engine: Engine, container: str, first_input: bytes, *, timeout_s: float) -> "ContainerStream":
        """Attach to a container that is made but not started, start it, and wait for the guest's first answer.

        Raises:
            SandboxError: it did not start, or the guest did not; the container is then removed.
        """
        stream = cls(engine, container)
        try:
            socket = await engine.call("attaching to a container", engine.attach, container)
            # Before the start there is no output that could be lost, and what is sent waits for the guest.
            await stream._loop.create_connection(lambda: stream, sock=socket)
            stream._put(first_input)
            await engine.call("starting a container", engine.api.start, container)
        except BaseException as error:
            stream.ready.cancel()
            await stream.aclose()
            if isinstance(error, NotFound):
                raise SandboxError(f"a container vanished before it started: {error}") from None
            raise
        await stream.begin(b"", timeout_s=timeout_s)
        return stream

    def kill(self, why: str) -> None:
        self.fail(f"the sandbox was closed: {why}")
        if self._transport is not None:
            self._transport.abort()  # the guest ends at the end of its input, and the engine removes the container

    async def aclose(self) -> None:
        """Remove the container, and wait until the engine has."""
        self.kill("by its owner")
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._remove())
        await asyncio.shield(self._closing)

    async def _remove(self) -> None:
        """What the engine does not remove now, because it is gone, the next start of verigym sweeps up."""
        api, id = self._engine.api, self.container
        try:
            async with asyncio.timeout(REMOVE_S):
                try:
                    await self._engine.call("removing a container", api.remove_container, id, force=True, v=True)
                except SandboxError as error:
                    if not any(sign in str(error) for sign in ("already in progress", "state improper")):
                        raise
                while True:
                    await self._engine.call("looking for a container", api.inspect_container, id)
                    await asyncio.sleep(0.02)
        except NotFound:
            pass
        except (SandboxError, TimeoutError) as error:
            if "no such container" in str(error):  # podman, where it went between two looks of its own
                return
            logger.warning("container %s was not removed: %s", id[:12], error)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Docker's own frames: the stream's number, three zeros, the length in 4 bytes, the data."""
        self._raw += data
        while len(self._raw) >= 8:
            end = 8 + int.from_bytes(self._raw[4:8], "big")
            if len(self._raw) < end:
                return
            kind, piece = self._raw[0], bytes(memoryview(self._raw)[8:end])
            del self._raw[:end]
            if kind == STDOUT:
                self.feed(piece)
            elif kind == STDERR:
                self.feed_error(piece)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(None)
        self._gone.set()

    def _write(self, data: memoryview) -> None:
        if self._transport is not None:
            self._transport.write(data)
