"""Progress on the terminal: bars with the remaining time, on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from ...terminal import console as make_console
from ...terminal import text_column


class Bar:
    """One bar."""

    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self) -> None:
        self._bars.advance(self._task)

    def at(self, done: int, total: int | None = None, text: str = "") -> None:
        """Set how far it is; ``total`` where it is known only now."""
        changes: dict[str, Any] = {"completed": done, "text": text}
        if total is not None:
            changes["total"] = total
        self._bars.update(self._task, **changes)


class Progress:
    """Bars while a run goes on; where nobody watches (no terminal), one line at the end of each."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or make_console(stderr=True)
        self._bars = Bars(
            text_column("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            text_column("left"),
            TimeRemainingColumn(),
            text_column("{task.fields[text]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    @contextmanager
    def bar(self, description: str, total: int | None = None) -> Iterator[Bar]:
        """A bar for one piece of work; ``total`` None where it is not known beforehand."""
        task = self._bars.add_task(description, total=total, text="")
        try:
            yield Bar(self._bars, task)
        finally:
            done = self._bars.tasks[self._bars.task_ids.index(task)]
            self._bars.stop_task(task)
            if not self._console.is_terminal:
                text = done.fields["text"]
                line = f"{description}: {done.completed:g} in {done.elapsed or 0.0:.0f} s{', ' + text if text else ''}"
                self.note(line)

    def note(self, text: str) -> None:
        """A line of its own, above the bars."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def print(self, renderable: Any) -> None:
        """A table, or text, on standard output."""
        make_console().print(renderable, highlight=False)
