"""Inside the sandbox: a process beside the shell, as the server sees it.

Part of the guest (see server.py): standard library only.
"""

import os
import select
import signal
import time
from collections.abc import Callable
from typing import Protocol

from .process import STATUS, fork, supervise
from .streams import PIECE
from .system import Config


class Owner(Protocol):
    """What a run needs of the server."""

    config: Config
    runs: "dict[int, Run]"

    def watch(self, fd: int, callback: Callable[[], object], events: int = ...) -> None: ...

    def forget(self, fd: int) -> None: ...

    def answer(self, header: Config, body: bytes) -> None: ...

    def kill_all(self, reason: str) -> None: ...


class Run:
    """A process beside the shell, seen from the server."""

    def __init__(self, server: Owner, request: Config, stdin: bytes) -> None:
        self.server, self.id, self.limit = server, request["id"], request["output_bytes"]
        self.sends_pieces: bool = request.get("stream", False)
        self.takes_more = self.sends_pieces
        self.started = time.monotonic()
        self.deadline = self.started + request["timeout"]
        self.reason: str | None = None
        self.report = b""
        self.outputs = (bytearray(), bytearray())
        (in_r, in_w), (out_r, out_w), (err_r, err_w), (status_r, status_w) = (os.pipe() for _ in range(4))
        try:
            self.pid = fork(lambda: supervise(server.config, request, (in_r, out_w, err_w, status_w)))
        except OSError:
            for fd in (in_w, out_r, err_r, status_r):
                os.close(fd)
            raise
        finally:
            for fd in (in_r, out_w, err_w, status_w):
                os.close(fd)
        for fd in (in_w, out_r, err_r, status_r):
            os.set_blocking(fd, False)
        self.stdin, self.stdin_fd = memoryview(stdin), in_w
        self.output_fds, self.status_fd = [out_r, err_r], status_r
        self._write()
        if self.stdin_fd >= 0:
            server.watch(in_w, self._write, select.EPOLLOUT)
        server.watch(out_r, lambda: self._read(0))
        server.watch(err_r, lambda: self._read(1))
        server.watch(status_r, self._read_report)

    def stop(self, reason: str) -> None:
        """Have the supervisor kill the process and all it started."""
        if self.reason is None:
            self.reason = reason
            os.kill(self.pid, signal.SIGTERM)

    def feed(self, data: bytes) -> None:
        """More input for a streaming process; none at all is its end."""
        if self.stdin_fd < 0:
            return  # it has closed its input
        self.stdin = memoryview(bytes(self.stdin) + data)
        self.takes_more = self.takes_more and bool(data)
        self._write()
        if self.stdin and self.stdin_fd >= 0:
            self.server.watch(self.stdin_fd, self._write, select.EPOLLOUT)

    def finish(self, killed: str | None) -> None:
        for index in (0, 1):
            while self.output_fds[index] >= 0 and self._read(index):
                pass
        for fd in (self.stdin_fd, *self.output_fds, self.status_fd):
            if fd >= 0:
                self.server.forget(fd)
                os.close(fd)
        del self.server.runs[self.id]
        code = None
        if len(self.report) == STATUS.size:
            status, told = STATUS.unpack(self.report)
            code, told = os.waitstatus_to_exitcode(status), told.rstrip(b"\0").decode()
            killed = killed or (told and (self.reason or told)) or None
        elif killed is None:
            code = -signal.SIGKILL  # its own supervisor was killed from inside: whatever it did counts as a crash
        head, tail = bytes(self.outputs[0]), bytes(self.outputs[1])
        self.server.answer(
            {
                "id": self.id,
                "exit_code": None if killed else code,
                "killed": killed,
                "seconds": time.monotonic() - self.started,
                "sizes": (len(head), len(tail)),
            },
            head + tail,
        )

    def _write(self) -> None:
        try:
            while self.stdin:
                self.stdin = self.stdin[os.write(self.stdin_fd, self.stdin[: 1 << 20]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.takes_more, self.stdin = False, memoryview(b"")
        self.server.forget(self.stdin_fd)
        if self.takes_more:
            return  # open for more
        os.close(self.stdin_fd)
        self.stdin_fd = -1

    def _read(self, index: int) -> bool:
        """Take a piece of output. False where there is none now."""
        fd, kept = self.output_fds[index], self.outputs[index]
        try:
            piece = os.read(fd, PIECE)
        except BlockingIOError:
            return False
        if not piece:
            self.server.forget(fd)
            os.close(fd)
            self.output_fds[index] = -1
            return False
        if index == 0 and self.sends_pieces:
            self.server.answer({"id": self.id, "piece": True}, piece)
            return True
        room = self.limit - len(kept)
        kept += piece[:room]
        if len(piece) > room:
            self.stop("output")
        return True

    def _read_report(self) -> None:
        self.report += os.read(self.status_fd, STATUS.size)
        self.finish(None)
        if len(self.report) < STATUS.size:
            self.server.kill_all("processes")  # what a lost supervisor leaves cannot be told from other processes
