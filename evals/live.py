"""What a long run tells while it works."""

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from ..terminal import console, text_column
from .verdict import Verdict


class LiveProgress:
    """A bar with the score so far and the remaining time on stderr; nothing where stderr is no terminal."""

    def __init__(self, doing: str, total: int) -> None:
        err = console(stderr=True)
        columns = (text_column(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        told = text_column("{task.fields[told]}")
        self._bar = Progress(*columns, told, console=err, disable=not err.is_terminal)
        self._task = self._bar.add_task(doing, total=total, told="")
        self._passed = self._graded = self._failures = 0

    def __enter__(self) -> "LiveProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def told(self, verdict: Verdict) -> None:
        self._passed += verdict.passed is True
        self._graded += verdict.passed is not None
        self._failures += verdict.passed is None
        told = f"passed {self._passed} of {self._graded}"
        if self._failures:
            told += f", {self._failures} without a verdict"
        self._bar.update(self._task, advance=1, told=told)
