"""What a long run tells while it works."""

import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from ..terminal import console, text_column
from .verdict import Verdict

LINE_S = 30.0


class LiveProgress:
    """The score so far and the time left, on stderr: a bar on a terminal, elsewhere a line in ``LINE_S`` seconds."""

    def __init__(self, doing: str, total: int) -> None:
        self._err = console(stderr=True)
        columns = (text_column(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        told = text_column("{task.fields[told]}")
        self._bar = Progress(*columns, told, console=self._err, disable=not self._err.is_terminal)
        self._task = self._bar.add_task(doing, total=total, told="")
        self._passed = self._graded = self._failures = 0
        self._doing, self._total = doing, total
        self._began = self._line_at = time.monotonic()

    def __enter__(self) -> "LiveProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def told(self, verdict: Verdict) -> None:
        self._passed += verdict.passed is True
        self._graded += verdict.passed is not None
        self._failures += verdict.passed is None
        if verdict.passed is None and self._failures == 1 and verdict.ending != "environment_failure":
            # An hour may pass until the report says it; a bug of an environment has been shown.
            line = f"{self._doing}: no verdict of {verdict.task_id!r} ({verdict.ending}): {verdict.detail}"
            self._err.print(line, highlight=False, soft_wrap=True, markup=False)
        told = f"passed {self._passed} of {self._graded}"
        if self._failures:
            told += f", {self._failures} without a verdict"
        self._bar.update(self._task, advance=1, told=told)
        if not self._err.is_terminal:
            self._line(told)

    def _line(self, told: str) -> None:
        now, done = time.monotonic(), self._graded + self._failures
        if now - self._line_at < LINE_S:
            return
        self._line_at = now
        left = (now - self._began) / done * max(0, self._total - done)
        line = f"{self._doing}: {done} of {self._total}, {told}; about {left:.0f} s left"
        self._err.print(line, highlight=False, soft_wrap=True)
