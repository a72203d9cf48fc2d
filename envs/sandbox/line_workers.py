"""Processes of our own that answer a line with a line, and can be killed at it: work whose price others choose."""

import contextlib
import os
import select
import subprocess
import threading
import time
from collections.abc import Sequence

from ...errors import GradingError


class LineWorkers:
    """A small pool of processes. Callable from any thread, any number at once. They start when first needed, say
    "ready", and answer one request at a time; one that ends over a request is replaced for the next."""

    def __init__(self, argv: Sequence[str], *, does: str, remedy: str, num_workers: int, start_s: float) -> None:
        """
        Args:
            does: what they do, for messages, as in "compares answers".
            remedy: what to try where one does not start.
            num_workers: most processes at once.
            start_s: wall-clock seconds one may take to start; only a machine in trouble needs them.
        """
        self._argv, self._does, self._remedy, self._start_s = list(argv), does, remedy, start_s
        self._free = threading.Semaphore(num_workers)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()

    def ask(self, request: bytes, wall_s: float) -> bytes | None:
        """The line that answers a request, a line without its end; None where the process ended over it.

        Raises:
            GradingError: no process can be started, or one is silent for ``wall_s``.
        """
        with self._free:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None or not worker.is_alive():
                worker = _Worker(self._argv, self._does, self._remedy, self._start_s)
            try:
                line = worker.ask(request, wall_s)
            except BaseException:
                worker.kill()
                raise
            if line is None:
                worker.kill()
                return None
            with self._lock:
                self._idle.append(worker)
            return line

    def close(self) -> None:
        """Kill the processes that nobody uses. The pool can be used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()


class _Worker:
    def __init__(self, argv: list[str], does: str, remedy: str, start_s: float) -> None:
        self._does, self._buffer = does, b""
        try:
            # In a session of its own: a Ctrl-C reaches the one who asks alone.
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise GradingError(f"the process that {does} cannot be started: {error}") from None
        try:
            if self._read_line(start_s) != b"ready":
                raise GradingError(f"the process that {does} did not start; {remedy}")
        except BaseException:
            self.kill()
            raise

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: bytes, wall_s: float) -> bytes | None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        return self._read_line(wall_s)

    def _read_line(self, wall_s: float) -> bytes | None:
        assert self._process.stdout is not None
        deadline = time.monotonic() + wall_s
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        while b"\n" not in self._buffer:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise GradingError(f"the process that {self._does} was silent for {wall_s:.0f} s")
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
