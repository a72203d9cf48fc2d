"""Logs judged in processes of their own: off the event loop, on as many cores as asked for, and with an end."""

import asyncio
import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ...errors import GradingError
from ...rewards.logs.judge import LogVerdict, UngradableLog
from ...rewards.score import Score
from ...rewards.swe import TestReport

CPU_SECONDS = 60.0
"""Processor time for one log. 20,000 tests take about one; what takes longer was made to."""
START_S = 120.0
"""Wall-clock seconds a process may take to start; only a machine in trouble needs them."""


class LogJudge:
    """A pool of processes for ``rewards.logs.judge_log``; they start when first needed, and end with this one.
    Usable from any thread and any event loop."""

    def __init__(self, *, num_workers: int = 2, cpu_seconds: float = CPU_SECONDS) -> None:
        """
        Args:
            num_workers: most logs at once.
            cpu_seconds: processor time for one log.
        """
        self._cpu_seconds = cpu_seconds
        self._free = threading.Semaphore(num_workers)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    async def judge(
        self,
        text: str,
        *,
        parser: str,
        fail_to_pass: Sequence[str],
        pass_to_pass: Sequence[str],
        eval_type: str = "pass_and_fail",
        stored: bool = False,
        strict: bool = False,
    ) -> LogVerdict:
        """``judge_log``; in a log that takes longer than it may, no test has passed.

        Raises:
            ValueError, UngradableLog: as ``judge_log``. GradingError: no process can be started.
        """
        arguments = {
            "text": text,
            "parser": parser,
            "fail_to_pass": list(fail_to_pass),
            "pass_to_pass": list(pass_to_pass),
            "eval_type": eval_type,
            "stored": stored,
            "strict": strict,
        }
        return await asyncio.to_thread(self._judge, arguments)

    def close(self) -> None:
        """End the processes that nobody uses. The judge can be used again."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()

    def _judge(self, arguments: dict[str, Any]) -> LogVerdict:
        request = json.dumps([self._cpu_seconds, arguments]).encode() + b"\n"
        with self._free:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            worker = worker or _Worker()
            try:
                line = worker.ask(request, wall_s=4 * self._cpu_seconds + 10)
            except BaseException:
                worker.kill()
                raise
            if line is None:
                worker.kill()
                return _unread(self._cpu_seconds, arguments)
            with self._lock:
                self._idle.append(worker)
        answer = json.loads(line)
        if "ungradable" in answer:
            raise UngradableLog(answer["ungradable"])
        if "error" in answer:
            raise ValueError(answer["error"])
        found = answer["verdict"]
        # JSON knows no tuple.
        report: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in found["report"].items()
        }
        return LogVerdict(score=Score(**found["score"]), tests=found["tests"], report=TestReport(**report))


@lru_cache(maxsize=1)
def default_judge() -> LogJudge:
    """The judge that all gradings of this process share."""
    judge = LogJudge(num_workers=max(2, os.cpu_count() or 1))
    atexit.register(judge.close)
    return judge


class _Worker:
    def __init__(self) -> None:
        program = "from verigym.rewards.logs.worker import main; main()"
        try:
            # In a session of its own: a Ctrl-C reaches the one who asks alone.
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise GradingError(f"the process that judges logs cannot be started: {error}") from None
        try:
            if self._read_line(START_S) != b"ready\n":
                raise GradingError("the process that judges logs did not start; try: python -c 'import swebench'")
        except BaseException:
            self.kill()
            raise

    def ask(self, request: bytes, *, wall_s: float) -> bytes | None:
        """The answer; None where the process ended over it. Raises GradingError where it is silent."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(request)
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        return self._read_line(wall_s)

    def _read_line(self, wall_s: float) -> bytes | None:
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + wall_s
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        parts: list[bytes] = []
        while not parts or not parts[-1].endswith(b"\n"):  # one answer is one line, and nothing is sent unasked
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise GradingError(f"the process that judges logs was silent for {wall_s:.0f} s")
            data = os.read(descriptor, 1 << 20)
            if not data:
                return None
            parts.append(data)
        return b"".join(parts)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except BrokenPipeError:
                pass


def _unread(seconds: float, arguments: dict[str, Any]) -> LogVerdict:
    detail = f"the log could not be read within {seconds:g} s of processor time"
    parts = {"fail_to_pass": 0.0, "pass_to_pass": 0.0, "resolved": 0.0}
    listed = {"FAIL_TO_PASS": arguments["fail_to_pass"], "PASS_TO_PASS": arguments["pass_to_pass"]}
    return LogVerdict(
        score=Score(value=0.0, passed=False, breakdown=parts, detail=detail),
        tests={name: {"success": [], "failure": tests} for name, tests in listed.items()},
        report=TestReport(statuses={}, complete=False, exit_code=None, detail=detail),
    )
