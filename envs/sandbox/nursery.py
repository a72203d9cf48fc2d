"""Sandboxes that are forks of one process which has the guest loaded, so that none of them starts an interpreter."""

import asyncio
import atexit
import marshal
import os
import select
import signal
import socket
import struct
import subprocess
import threading
from functools import lru_cache
from typing import Any, cast

from ...errors import SandboxError
from .background import on_thread_to_its_end
from .boot import sized
from .frames import Frames
from .launch import base_python, guest_command, nursery_image

END_S = 10.0
ANSWER_S = 60.0
"""How long a box may take to end, and the process that forks to answer."""


class Nursery:
    """The process that forks; started at the first order, and again where it has ended. Its boxes end with it.

    It ends when this process does, however that ends. Its methods may be called by any thread.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._lock, self._owner = threading.Lock(), os.getpid()

    def fork(self, order: dict[str, Any], fds: tuple[int, int, int]) -> int:
        """A box whose guest has these descriptors as its input, output and errors; they stay the caller's.

        Returns:
            A descriptor of the box's keeper: to kill it is to end the box, and it can be read when it has ended.
        Raises:
            SandboxError: the process does not run.
        """
        with self._lock:
            try:
                control = self._running()
                message = sized(marshal.dumps(order))
                control.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("3i", *fds))])
                said, ancillary, _, _ = control.recvmsg(1, socket.CMSG_SPACE(4))
            except OSError as error:
                self._end()
                raise SandboxError(f"the process that forks sandboxes does not run: {error}") from None
            if not said or not ancillary:
                self._end()
                raise SandboxError("the process that forks sandboxes has ended; try again")
            return struct.unpack("i", ancillary[0][2])[0]

    def _running(self) -> socket.socket:
        if self._socket is not None and self._process is not None and self._process.poll() is None:
            return self._socket
        self._end()
        ours, its = socket.socketpair()
        with its:
            self._process = subprocess.Popen(
                guest_command(base_python()[0]),
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )
        atexit.register(self._end)
        ours.settimeout(ANSWER_S)
        self._socket = ours
        ours.sendall(nursery_image())
        return ours

    def _end(self) -> None:
        process, control = self._process, self._socket
        self._process = self._socket = None
        if control is not None:
            control.close()
        if process is not None and os.getpid() == self._owner:  # not by a process that ours has forked
            process.kill()
            process.wait()
            atexit.unregister(self._end)


@lru_cache(maxsize=1)
def _nursery(process: int) -> Nursery:
    return Nursery()


def nursery() -> Nursery:
    """This process's own; a process that it forks has another."""
    return _nursery(os.getpid())


class Nestling(Frames):
    """Requests to a guest that was forked. It is killed by ``aclose``, and dies with our process."""

    def __init__(self) -> None:
        super().__init__()
        self._keeper = -1
        self._input: asyncio.WriteTransport | None = None
        self._outputs: list[asyncio.BaseTransport] = []

    @classmethod
    async def open(cls, order: dict[str, Any], first_input: bytes, *, timeout_s: float) -> "Nestling":
        """Have a box made and wait for its guest's first answer.

        Args:
            order: "group": the file that a process writes its id to in order to join a control group, or "";
                "new_user": whether the box gets a user namespace.
        Raises:
            SandboxError: it was not made, ended, or did not answer in time; the message has what it said.
        """
        channel = cls()
        pipes = [os.pipe() for _ in range(3)]
        its, ours = (pipes[0][0], pipes[1][1], pipes[2][1]), [pipes[0][1], pipes[1][0], pipes[2][0]]
        try:
            made = asyncio.ensure_future(on_thread_to_its_end(nursery().fork, order, its))
            try:
                await asyncio.wait([made])
            except asyncio.CancelledError:
                await asyncio.wait([made])
                if made.exception() is None:
                    channel._kept(made.result())
                raise
            channel._kept(made.result())
            for place, told in ((1, channel.feed), (2, channel.feed_error)):
                file = os.fdopen(ours[place], "rb", buffering=0)
                ours[place] = -1
                transport, _ = await channel._loop.connect_read_pipe(lambda told=told: _Reader(channel, told), file)
                channel._outputs.append(transport)
            file = os.fdopen(ours[0], "wb", buffering=0)
            ours[0] = -1
            transport, _ = await channel._loop.connect_write_pipe(lambda: _Writer(channel), file)
            channel._input = cast(asyncio.WriteTransport, transport)
        except BaseException:
            channel.ready.cancel()
            await channel.aclose()
            raise
        finally:
            for fd in (*its, *ours):
                if fd >= 0:
                    os.close(fd)
        await channel.begin(first_input, timeout_s=timeout_s)
        return channel

    def _kept(self, keeper: int) -> None:
        self._keeper = keeper
        self._loop.add_reader(keeper, self._keeper_ended)

    def _keeper_ended(self) -> None:
        """The keeper has ended, and with it the box."""
        self._loop.remove_reader(self._keeper)
        os.close(self._keeper)
        self._keeper = -1
        self._gone.set()
        self._loop.call_later(0.05, self.fail, None)  # what it said may still be on its way

    @property
    def keeper_pid(self) -> int:
        """The process that keeps the box; its one child is the guest. Raises OSError where it has ended."""
        if self._keeper < 0:
            raise ProcessLookupError("the sandbox has ended")
        with open(f"/proc/self/fdinfo/{self._keeper}") as file:
            pid = next((int(line.split()[1]) for line in file if line.startswith("Pid:")), -1)
        if pid < 0:
            raise ProcessLookupError("the sandbox has ended")
        return pid

    def kill(self, why: str) -> None:
        """Kill everything in the box; open requests fail."""
        self.fail(f"the sandbox was closed: {why}")
        if self._keeper >= 0:
            try:
                signal.pidfd_send_signal(self._keeper, signal.SIGKILL)
            except ProcessLookupError:
                pass

    async def aclose(self) -> None:
        self.kill("by its owner")
        if self._keeper >= 0:
            await self.wait_gone(END_S)
        for transport in (self._input, *self._outputs):
            if transport is not None and not transport.is_closing():
                transport.abort() if isinstance(transport, asyncio.WriteTransport) else transport.close()

    def _write(self, data: memoryview) -> None:
        if self._input is not None and not self._input.is_closing():
            self._input.write(data)


class _Writer(asyncio.BaseProtocol):
    def __init__(self, channel: Nestling) -> None:
        self._channel = channel

    def pause_writing(self) -> None:
        self._channel.pause_writing()

    def resume_writing(self) -> None:
        self._channel.resume_writing()


class _Reader(asyncio.Protocol):
    def __init__(self, channel: Nestling, told: Any) -> None:
        self._channel, self._told = channel, told

    def data_received(self, data: bytes) -> None:
        self._told(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._told == self._channel.feed:
            self._channel._loop.call_later(0.05, self._channel.fail, None)


def is_possible() -> bool:
    """Whether this system can tell of processes by descriptors."""
    return hasattr(os, "pidfd_open") and hasattr(signal, "pidfd_send_signal") and hasattr(select, "poll")
