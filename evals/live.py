"""What a long run tells while it works."""

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .verdict import Verdict


class LiveProgress:
    """A bar with the score so far and the remaining time on stderr; nothing where stderr is no terminal."""

    def __init__(self, doing: str, total: int) -> None:
        console = Console(stderr=True)
        columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        told = TextColumn("{task.fields[told]}")
        self._bar = Progress(*columns, told, console=console, disable=not console.is_terminal)
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
