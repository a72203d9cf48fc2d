"""Progress on the terminal, on stderr: bars of what runs now, a line for each that has ended, and a line of curves."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from ...terminal import console as make_console
from ...terminal import text_column

LEVELS = "▁▂▃▄▅▆▇█"
PLAIN_LEVELS = "_.-=+*#@"
CURVE_POINTS = 20


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
    """Bars while a run goes on, each replaced by a line when it ends; where nobody watches (no terminal), the lines."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or make_console(stderr=True)
        self._bars = _BarsAndCurves(
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
            self._bars.remove_task(task)
            self._bars.refresh()
            text = done.fields["text"]
            line = f"{description}: {done.completed:g} in {done.elapsed or 0.0:.0f} s{', ' + text if text else ''}"
            self.note(line)

    def curves(self, title: str, curves: Mapping[str, Sequence[float]]) -> None:
        """Values in [0, 1] so far, by name: one line that changes on a terminal, a line of the newest elsewhere."""
        if not self._console.is_terminal:
            self.note(f"{title}: " + ", ".join(f"{name} {values[-1]:.2f}" for name, values in curves.items() if values))
            return
        levels = LEVELS if self._console.encoding.startswith("utf") else PLAIN_LEVELS
        drawn = (f"{name} {curve(values, levels)} {values[-1]:.2f}" for name, values in curves.items() if values)
        self._bars.curves = f"{title}: " + "  ".join(drawn)
        self._bars.refresh()

    def end_curves(self) -> None:
        """The line of curves stays as it is, above what comes."""
        line, self._bars.curves = self._bars.curves, ""
        if line:
            self.note(line)

    def note(self, text: str) -> None:
        """A line of its own, above the bars."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def print(self, renderable: Any) -> None:
        """A table, or text, on standard output. Bars stand still meanwhile: on a terminal both write to it, and bars
        would be drawn over what has been printed."""
        running = self._bars.live.is_started
        self._bars.stop()
        make_console().print(renderable, highlight=False)
        if running:
            self._bars.start()


class _BarsAndCurves(Bars):
    curves = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.curves:
            yield Text(self.curves, no_wrap=True, overflow="ellipsis")


def curve(values: Sequence[float], levels: str = LEVELS) -> str:
    """The newest values in [0, 1] as a line of blocks."""
    top = len(levels) - 1
    return "".join(levels[round(top * min(1.0, max(0.0, value)))] for value in values[-CURVE_POINTS:])
