"""The guest as a pod's first process: one websocket, attached to its standard streams, carries the frames."""

import asyncio

from ..frames import Frames
from .cluster import Socket
from .pod import Pod
from .status import MAIN


class PodStream(Frames):
    """Requests to the guest of a pod, which ends with its input; closing deletes the pod."""

    def __init__(self, pod: Pod) -> None:
        super().__init__()
        self.pod = pod
        self._socket: Socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._piece: bytes | None = None
        self._has_piece = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, pod: Pod, first_input: bytes, *, timeout_s: float) -> "PodStream":
        """Attach to a box that runs, and wait for the guest's first answer.

        Raises:
            SandboxError: it did not start; the pod is then deleted.
        """
        stream = cls(pod)
        try:
            stream._socket = await pod.client.attach(pod.name, MAIN)
        except BaseException:
            stream.ready.cancel()
            await stream.aclose()
            raise
        stream._tasks = [asyncio.create_task(one) for one in (stream._read(), stream._send_pieces())]
        await stream.begin(first_input, timeout_s=timeout_s)
        return stream

    def kill(self, why: str) -> None:
        self.fail(f"the sandbox was closed: {why}")
        for task in self._tasks:
            task.cancel()

    async def aclose(self) -> None:
        """Delete the pod, and wait until it is gone."""
        self.kill("by its owner")
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._end())
        await asyncio.shield(self._closing)

    async def _end(self) -> None:
        try:
            if self._tasks:
                await asyncio.wait(self._tasks)
            if self._socket is not None:  # a task that was ended before it began has closed nothing
                await self._socket.aclose()
            await self.pod.delete()
        finally:
            await self.pod.client.aclose()
            self._gone.set()

    async def _read(self) -> None:
        assert self._socket is not None
        try:
            async for channel, data in self._socket.messages():
                if channel == Socket.STDOUT:
                    self.feed(data)
                elif channel == Socket.STDERR:
                    self.feed_error(data)
            if self._lost is None:
                why = await self.pod.why_ended()
                self.fail(f"the sandbox ended: {why or 'the connection to its pod was cut'}{self._said()}")
        finally:
            await self._socket.aclose()  # and so the guest ends, also where we were told to stop

    async def _send_pieces(self) -> None:
        assert self._socket is not None
        try:
            while True:
                await self._has_piece.wait()
                self._has_piece.clear()
                if self._piece is not None:
                    await self._socket.send(self._piece)
                    self.resume_writing()
        except OSError:
            pass  # the reader meets the end as well, and finds out why

    def _write(self, data: memoryview) -> None:
        self.pause_writing()
        self._piece = bytes(data)
        self._has_piece.set()
