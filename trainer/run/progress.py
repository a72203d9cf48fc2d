"""Progress on the terminal, on stderr: bars of what runs now, a line for each that has ended, what goes on below."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TaskID, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from ...terminal import console as make_console
from ...terminal import text_column

LEVELS = "▁▂▃▄▅▆▇█"
PLAIN_LEVELS = "_.-=+*#@"
CURVE_POINTS = 20
UNLIMITED = 10_000
RESERVED = 8
"""Lines that bars leave to what is shown below them."""

Drawn = Callable[[int, int], RenderableType]
"""(columns, lines) -> what is drawn in them."""


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
        self._bars = _BarsAndMore(
            text_column("{task.description}"),
            BarColumn(bar_width=24 if self._console.width >= 100 else 10),
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

    @property
    def levels(self) -> str:
        """Blocks of a line of curves, or what stands for them where the terminal's encoding has none."""
        return LEVELS if self._console.encoding.startswith("utf") else PLAIN_LEVELS

    def show(self, drawn: Drawn, line: str) -> None:
        """What goes on, below the bars: drawn anew as often as they are on a terminal, a line each time elsewhere."""
        if not self._console.is_terminal:
            self.note(line)
            return
        self._bars.drawn = drawn
        self._bars.refresh()

    def end_shown(self) -> None:
        """What was shown last stays as it is, above what comes."""
        drawn, self._bars.drawn = self._bars.drawn, None
        if drawn is not None:
            self._bars.refresh()
            self._console.print(drawn(self._console.width, UNLIMITED), highlight=False)

    def note(self, text: str) -> None:
        """A line of its own, above the bars."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def print(self, renderable: Any) -> None:
        """A table, or text, on standard output. Bars stand still meanwhile: on a terminal both write to it, and bars
        would be drawn over what has been printed. Lines of text are left to the terminal to wrap: a command can be
        copied whole."""
        with self._bars.hidden():
            make_console().print(renderable, highlight=False, soft_wrap=isinstance(renderable, str))


class _BarsAndMore(Bars):
    """Never higher than the terminal: what is higher would be cropped below, where the newest bars stand."""

    def __init__(self, *columns: ProgressColumn, console: Console, disable: bool) -> None:
        self.drawn: Drawn | None = None
        self._hidden = False
        self._screen = console  # asked for before rich's own is set
        super().__init__(*columns, console=console, disable=disable, transient=True)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Nothing is drawn inside, and standard output is the program's own. Bars that are drawn go first: rich erases
        as many lines as it drew last, whatever has been printed since."""
        if not self.live.is_started:
            yield
            return
        self._hidden = True
        self.refresh()
        self.stop()
        try:
            yield
        finally:
            self._hidden = False
            self.start()

    def get_renderables(self) -> Iterable[RenderableType]:
        if self._hidden:
            return
        width, height = self._screen.size
        height -= 1  # the line of the cursor
        running = self.tasks
        kept = running[-max(1, height - (RESERVED if self.drawn else 1)) :]
        if len(kept) < len(running):
            yield Text(f"{len(running) - len(kept)} more are running", style="dim")
        if kept:
            yield self.make_tasks_table(kept)
        if self.drawn:
            yield self.drawn(width, max(4, height - len(kept) - (len(kept) < len(running))))


def curve(values: Sequence[float], levels: str = LEVELS, points: int = CURVE_POINTS) -> str:
    """The newest values in [0, 1] as a line of blocks."""
    top = len(levels) - 1
    return "".join(levels[round(top * min(1.0, max(0.0, value)))] for value in values[-points:])
