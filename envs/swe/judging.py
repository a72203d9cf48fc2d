"""Logs judged in processes of their own: off the event loop, on as many cores as asked for, and with an end."""

import atexit
import json
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ...rewards.logs.judge import LogVerdict, UngradableLog
from ...rewards.score import Score
from ...rewards.swe import TestReport
from ..sandbox.background import on_thread
from ..sandbox.line_workers import LineWorkers

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
        self._workers = LineWorkers(
            [sys.executable, "-c", "from verigym.rewards.logs.worker import main; main()"],
            does="judges logs",
            remedy="try: python -c 'import swebench'",
            num_workers=num_workers,
            start_s=START_S,
        )

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
        return await on_thread(self._judge, arguments)

    def close(self) -> None:
        """End the processes that nobody uses. The judge can be used again."""
        self._workers.close()

    def _judge(self, arguments: dict[str, Any]) -> LogVerdict:
        request = json.dumps([self._cpu_seconds, arguments]).encode()
        line = self._workers.ask(request, 4 * self._cpu_seconds + 10)
        if line is None:
            return _unread(self._cpu_seconds, arguments)
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
        score = Score(**found["score"] | {"bounds": tuple(found["score"]["bounds"])})
        return LogVerdict(score=score, tests=found["tests"], report=TestReport(**report))


@lru_cache(maxsize=1)
def default_judge() -> LogJudge:
    """The judge that all gradings of this process share."""
    judge = LogJudge(num_workers=max(2, os.cpu_count() or 1))
    atexit.register(judge.close)
    return judge


def _unread(seconds: float, arguments: dict[str, Any]) -> LogVerdict:
    detail = f"the log could not be read within {seconds:g} s of processor time"
    parts = {"fail_to_pass": 0.0, "pass_to_pass": 0.0, "resolved": 0.0}
    listed = {"FAIL_TO_PASS": arguments["fail_to_pass"], "PASS_TO_PASS": arguments["pass_to_pass"]}
    return LogVerdict(
        score=Score(value=0.0, passed=False, breakdown=parts, detail=detail),
        tests={name: {"success": [], "failure": tests} for name, tests in listed.items()},
        report=TestReport(statuses={}, complete=False, exit_code=None, detail=detail),
    )
