"""Mathematical equality of two answers, decided by sympy in processes that can be killed."""

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

from ...errors import GradingError
from ...rewards.math.expression_tokens import LONGEST
from ...rewards.math.expressions import read_statement
from ...rewards.math.text import canonical

logger = logging.getLogger(__name__)

START_S = 60.0
"""Wall-clock seconds a worker may take to import sympy; only a machine in trouble needs them."""


class EquivalenceChecker:
    """A small pool of workers. Callable from any thread, any number at once; results do not depend on the thread."""

    def __init__(self, *, num_workers: int = 2, cpu_seconds: float = 5.0, memory_mib: int = 2048) -> None:
        """
        Args:
            num_workers: most processes at once; they start when first needed.
            cpu_seconds: processor time one pair may take; beyond it the answers count as not equal.
            memory_mib: address space of a worker; beyond it likewise.
        """
        self._argv = [sys.executable, "-I", str(Path(__file__).with_name("equivalence_worker.py"))]
        self._argv += [str(cpu_seconds), str(memory_mib)]
        # A sleeping or swapping worker uses no processor time; this is when we stop to wait for one.
        self._wall_s = 4 * cpu_seconds + 10
        self._free = threading.Semaphore(num_workers)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()

    def __call__(self, answer: str, gold: str) -> bool:
        """Whether two answers are equal; False where the comparison exceeds its limits.

        Raises:
            GradingError: no worker can be started, or one hangs without using the processor.
        """
        if max(len(answer), len(gold)) > LONGEST:
            return False
        with self._free:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            if worker is None or not worker.is_alive():
                worker = _Worker(self._argv)
            try:
                equal = worker.ask(answer, gold, self._wall_s)
            except BaseException:
                worker.kill()
                raise
            if equal is None:
                logger.info("comparing %.80r with %.80r exceeded its limits; counted as not equal", answer, gold)
                worker.kill()
                return False
            with self._lock:
                self._idle.append(worker)
            return equal

    def close(self) -> None:
        """Kill the idle workers. The checker can be used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()


@lru_cache(maxsize=1)
def default_checker() -> EquivalenceChecker:
    """The checker that all environments of this process share."""
    checker = EquivalenceChecker()
    atexit.register(checker.close)
    return checker


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
            raise GradingError(f"cannot start the process that compares answers: {error}") from None
        self._buffer = b""
        try:
            if self._read_line(START_S) != b"ready":
                raise GradingError(
                    "the process that compares answers did not start; try: python -c 'import latex2sympy2_extended'"
                )
        except BaseException:
            self.kill()
            raise

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, answer: str, gold: str, wall_s: float) -> bool | None:
        """True or False; None where the worker ended over this pair."""
        assert self._process.stdin is not None
        texts = [canonical(text) for text in (answer, gold)]
        request = json.dumps([*texts, *map(read_statement, texts)]).encode() + b"\n"
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        line = self._read_line(wall_s)
        return None if line is None else json.loads(line)

    def _read_line(self, wall_s: float) -> bytes | None:
        """A line of its output; None at its end. Raises GradingError where nothing comes in time."""
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        deadline = time.monotonic() + wall_s
        while b"\n" not in self._buffer:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise GradingError(f"the process that compares answers was silent for {wall_s:.0f} s")
            data = os.read(descriptor, 65536)
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
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
