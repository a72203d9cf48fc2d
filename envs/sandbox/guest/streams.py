"""Inside the sandbox: pipes read without waiting, and what is kept of a stream of any length.

Part of the guest (see server.py): standard library only.
"""

import fcntl
import os
import struct
from collections.abc import Callable
from typing import Protocol

PIECE = 1 << 18
EPOLLIN, EPOLLOUT = 1, 4
F_SETPIPE_SZ, FIONREAD = 1031, 0x541B


class Watcher(Protocol):
    """Calls back when a descriptor can be read, or what ``events`` says."""

    def watch(self, fd: int, callback: Callable[[], object], events: int = EPOLLIN) -> None: ...

    def forget(self, fd: int) -> None: ...

    def reap(self) -> None:
        """Wait for what has ended; tells the shell of its end."""
        ...

    def supervisors(self) -> set[int]:
        """Process ids of what runs beside the shell."""
        ...


class Kept:
    """The head and the tail of a stream of any length."""

    def __init__(self, num_bytes: int) -> None:
        self.room, self.head, self.tail, self.num_seen = num_bytes, bytearray(), bytearray(), 0
        self.num_head = num_bytes // 2
        self.num_tail = num_bytes - self.num_head

    def add(self, piece: bytes) -> None:
        self.num_seen += len(piece)
        missing = self.num_head - len(self.head)
        if missing > 0:
            self.head += piece[:missing]
            piece = piece[missing:]
        self.tail += piece[-self.num_tail :]
        if len(self.tail) > 2 * self.num_tail:
            del self.tail[: -self.num_tail]

    def parts(self) -> tuple[bytes, bytes, int]:
        """(head, tail, number of bytes dropped between them)."""
        tail = bytes(self.tail[-self.num_tail :]) if self.num_tail else b""
        return bytes(self.head), tail, self.num_seen - len(self.head) - len(tail)


class Forsaken:
    """Streams whose writers live on: what they write goes nowhere, and does not block them."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher, self._fds = watcher, list[int]()

    def add(self, fd: int) -> None:
        self._fds.append(fd)
        self._watcher.watch(fd, lambda: self._discard(fd))
        self._discard(fd)

    def close(self) -> None:
        """When every writer is dead."""
        for fd in list(self._fds):
            self._end(fd)

    def _discard(self, fd: int) -> None:
        if drain(fd, nowhere, pieces=16):
            self._end(fd)

    def _end(self, fd: int) -> None:
        self._fds.remove(fd)
        self._watcher.forget(fd)
        os.close(fd)


def nowhere(piece: bytes) -> None:
    """Takes what nobody wants."""


def drain(fd: int, take: Callable[[bytes], object], pieces: int = 1 << 30) -> bool:
    """Read what is there. True at the end of the stream."""
    for _ in range(pieces):
        try:
            piece = os.read(fd, PIECE)
        except BlockingIOError:
            return False
        if not piece:
            return True
        take(piece)
    return False


def fifo(path: str, mode: int) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)  # commands of our own user may have removed it
    os.mkfifo(path)
    os.chmod(path, mode)


def reader(path: str) -> int:
    """A new FIFO that everybody may write to, open for reading."""
    fifo(path, 0o622)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def write_file(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o644)


def widen(pipe: int) -> None:
    """Let a pipe hold more, where the system allows it: less switching between its two ends."""
    try:
        fcntl.fcntl(pipe, F_SETPIPE_SZ, 1 << 20)
    except OSError:
        pass


def num_unread(pipe: int) -> int:
    """How many bytes nobody has read yet."""
    return struct.unpack("i", fcntl.ioctl(pipe, FIONREAD, b"\0" * 4))[0]
