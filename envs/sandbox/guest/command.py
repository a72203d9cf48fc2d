"""Inside the sandbox: one command of the session, with the FIFOs that are its alone.

Part of the guest (see server.py): standard library only.
"""

import os
import time
from collections.abc import Callable

from .streams import PIECE, Forsaken, Kept, Watcher, drain, reader, widen


class Command:
    """A command that runs in the shell."""

    def __init__(self, number: int, text: bytes, timeout: float, keep: int, reply: Callable[..., None]) -> None:
        self.number, self.text, self.reply, self.kept = number, text, reply, Kept(keep)
        self.word = os.urandom(8).hex()  # not known to anything that ran before
        self.started = time.monotonic()
        self.deadline = self.started + timeout
        self.record = b""
        self.output = ""
        """The FIFO that takes its output; empty where that is the shell's."""
        self.output_fd = self.status_fd = -1
        self.quick = self.direct = self.checking = self.moved = self.asked_again = self.replaced = False
        self.still = False
        """Nothing is told after it: that it is done is seen in what bash has read, its status in bash's memory."""
        self.asks = True
        """Whether it may look at the last status."""
        self.num_silent = 0
        self._paths: list[str] = []
        self._widened = False

    def open_status(self, watcher: Watcher, folder: str, pid: int, told: Callable[[], object]) -> None:
        """Make the FIFO over which its report comes. Raises OSError."""
        self.status = f"{folder}/{pid}.{self.word}"
        self._paths += [self.status, f"{folder}/.{self.word}"]
        self.status_fd = reader(self.status)
        os.link(self.status, self._paths[-1])
        watcher.watch(self.status_fd, told)

    def reopen_status(self, watcher: Watcher, told: Callable[[], object]) -> None:
        """Opened anew it is not at an end. Whoever has come since finds it with a reader all the time."""
        before = self.status_fd
        self.status_fd = os.open(self.status, os.O_RDONLY | os.O_NONBLOCK)
        watcher.forget(before)
        os.close(before)
        watcher.watch(self.status_fd, told)

    def open_output(self, watcher: Watcher, folder: str) -> None:
        """Make a FIFO of its own for its output. Raises OSError."""
        self.output = f"{folder}/o{self.word}"
        self._paths.append(self.output)
        self.output_fd = reader(self.output)
        watcher.watch(self.output_fd, lambda: self._read_output(watcher))

    def drain_status(self) -> bool:
        """Take what has been told. True where nobody writes to the FIFO now."""
        pieces: list[bytes] = []
        ended = drain(self.status_fd, pieces.append)
        self.record += b"".join(pieces)
        return ended

    def widen(self, fd: int) -> None:
        if not self._widened and self.kept.num_seen > 2 * PIECE:
            self._widened = True
            widen(fd)

    def close(self, watcher: Watcher, forsaken: Forsaken) -> None:
        """Take the last of its own output. A background job that still holds it writes to nowhere from now on."""
        if self.output_fd >= 0 and not drain(self.output_fd, self.kept.add):
            forsaken.add(self.output_fd)
            self.output_fd = -1
        for fd in (self.output_fd, self.status_fd):
            if fd >= 0:
                watcher.forget(fd)
                os.close(fd)
        for path in self._paths:
            try:
                os.unlink(path)
            except OSError:
                pass

    def _read_output(self, watcher: Watcher) -> None:
        if self.output_fd < 0:
            return
        if drain(self.output_fd, self.kept.add, pieces=16):
            watcher.forget(self.output_fd)
            os.close(self.output_fd)
            self.output_fd = -1
        else:
            self.widen(self.output_fd)
