"""Whether what a program printed or returned is right, at a bounded price.

Python's own containers can be made to take hours by whoever chooses what is put into them: a set of numbers with one
hash is quadratic, so is reducing a fraction or comparing a decimal with a long integer. A report of ``SMALL``
characters costs a fraction of a second at worst and is read here; a larger one is read and compared in a process that
ends at its limits, and then is not right.
"""

import asyncio
import atexit
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import GradingError
from ...rewards import values
from . import plain
from .judge import PRINTED, RETURNED, agree

logger = logging.getLogger(__name__)

SMALL = 16_384
"""Characters of a report (and of a reported value that it is compared with) that are read in this process."""

SMALL_TEXT = 1 << 18
"""Characters of printed text that are compared in this process: linear, whatever they are."""

START_S = 60.0


async def same(kind: str, report: str, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether a report is right, as ``judge.agree``; False where finding out exceeds the limits.

    Raises:
        GradingError: no process can be started to compare in, or one hangs without using the processor.
    """
    if kind in PRINTED:
        small = len(report) <= SMALL_TEXT or report == expected
    else:
        size = len(report) if kind in RETURNED else max(len(report), len(expected))
        small = size <= SMALL
    if small:
        return agree(plain, values, kind, report, expected, tolerance)
    return await asyncio.to_thread(default_comparer(), kind, report, expected, tolerance)


class Comparer:
    """A small pool of processes that compare. Callable from any thread."""

    def __init__(self, *, num_workers: int = 2, cpu_s: float = 10.0, memory_mib: int = 4096) -> None:
        """
        Args:
            num_workers: most processes at once; they start when first needed.
            cpu_s: processor time of one comparison. memory_mib: address space. Beyond either: not the same.
        """
        self._argv = [sys.executable, "-I", str(Path(__file__).with_name("compare_worker.py"))]
        self._argv += [str(cpu_s), str(memory_mib)]
        # A worker that waits for a core uses no processor time; this is when we stop to wait for it.
        self._wall_s = 10 * cpu_s + START_S
        self._free = threading.Semaphore(num_workers)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()

    def __call__(self, kind: str, report: str, expected: Any, tolerance: float = 0.0) -> bool:
        """As ``same``."""
        if kind in RETURNED:
            expected = plain.encode(expected)
        line = json.dumps([kind, report, expected, tolerance]).encode() + b"\n"
        with self._free:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None or not worker.is_alive():
                worker = _Worker(self._argv)
            try:
                found = worker.ask(line, self._wall_s)
            except BaseException:
                worker.kill()
                raise
            if found is None:
                logger.info("a report of %d characters could not be compared within the limits", len(report))
                worker.kill()
                return False
            with self._lock:
                self._idle.append(worker)
            return found

    def close(self) -> None:
        """Kill the idle processes. It can be used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()


@lru_cache(maxsize=1)
def default_comparer() -> Comparer:
    """The one that all gradings of this process share."""
    comparer = Comparer()
    atexit.register(comparer.close)
    return comparer


class _Worker:
    def __init__(self, argv: list[str]) -> None:
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise GradingError(f"cannot start the process that compares reports: {error}") from None
        try:
            if self._read_line(START_S) != b"ready":
                raise GradingError("the process that compares reports did not start; is there memory left?")
        except BaseException:
            self.kill()
            raise

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, line: bytes, wall_s: float) -> bool | None:
        """What it says; None where it ended over this report."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        told = self._read_line(wall_s)
        return None if told is None else told == b"true"

    def _read_line(self, wall_s: float) -> bytes | None:
        """A line of its output, which is short; None at its end."""
        assert self._process.stdout is not None
        deadline, told = time.monotonic() + wall_s, b""
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        while not told.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise GradingError(f"the process that compares reports was silent for {wall_s:.0f} s")
            data = os.read(self._process.stdout.fileno(), 4096)
            if not data:
                return None
            told += data
        return told.rstrip()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
