"""The guest as a child process of ours: its standard input and output carry the frames."""

import asyncio
import os
import signal
from collections.abc import Sequence

from ...errors import SandboxError
from .frames import Frames

END_S = 10.0


class Channel(Frames, asyncio.SubprocessProtocol):
    """Requests to a child process. It is killed by ``aclose``, and dies with ours."""

    @classmethod
    async def open(cls, argv: Sequence[str], first_input: bytes, *, timeout_s: float) -> "Channel":
        """Start the process and wait for its first answer.

        Raises:
            SandboxError: it did not start, ended, or did not answer in time; the message has what it said.
        """
        channel = cls()
        # asyncio can wait for ever for a child whose start is cancelled before its pipes are open: let it finish.
        start = asyncio.ensure_future(
            channel._loop.subprocess_exec(lambda: channel, *argv, start_new_session=True, env={})
        )
        try:
            await asyncio.wait([start])
        except asyncio.CancelledError:
            await asyncio.wait([start])
            if start.exception() is None:
                channel.ready.cancel()
                await channel.aclose()
            raise
        if isinstance(error := start.exception(), OSError):
            raise SandboxError(f"cannot run {argv[0]!r}: {error}")
        start.result()
        await channel.begin(first_input, timeout_s=timeout_s)
        return channel

    def kill(self, why: str) -> None:
        """Kill the process, and with it everything in the sandbox; open requests fail."""
        self.fail(f"the sandbox was closed: {why}")
        if self._transport.get_returncode() is None:
            try:
                # The whole group: a launcher killed while it starts would leave its child behind.
                os.killpg(self._transport.get_pid(), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def end_input(self) -> None:
        """Tell the guest to end by itself."""
        self.fail("the sandbox was closed")
        pipe = self._transport.get_pipe_transport(0)
        if pipe is not None:
            pipe.close()

    async def aclose(self) -> None:
        self.kill("by its owner")
        await self.wait_gone(END_S)
        self._transport.close()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self.feed_error(data)
        else:
            self.feed(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 1:
            self._loop.call_later(0.05, self.fail, None)  # what it said on standard error may still be on its way

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(None)
        self._gone.set()

    def _write(self, data: memoryview) -> None:
        pipe = self._transport.get_pipe_transport(0)
        if isinstance(pipe, asyncio.WriteTransport):
            pipe.write(data)
