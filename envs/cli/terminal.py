"""Progress on stderr and tables on stdout, for people."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ...terminal import console, text_column

FILE_WIDTH = 200
LINE_S = 10.0


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar with elapsed and remaining time; yields ``tell(what, done, total)``, total 0 where it is not known.

    Where stderr is no terminal, such as a log, it is a line for each new thing that is being done, and one in
    ``LINE_S`` seconds for how far it is.
    """
    if not console(stderr=True).is_terminal:
        yield _Lines().tell
        return
    columns = (text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            progress.update(bar, description=what, completed=done, total=total or None)

        yield tell


class _Lines:
    """Progress as lines."""

    def __init__(self) -> None:
        self._began = self._told_at = time.monotonic()
        self._kind = ""

    def tell(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        kind = "".join(letter for letter in what if not letter.isdigit())
        if kind == self._kind and now - self._told_at < LINE_S and not (total and done == total):
            return
        self._kind, self._told_at = kind, now
        far = f" {done} of {total}" if total else ""
        console(stderr=True).print(f"[{now - self._began:.0f} s] {what}{far}", soft_wrap=True)


def table(title: str, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; numbers stand to the right."""
    shown = Table(title=title, title_justify="left")
    cells = [tuple(row) for row in rows]
    for column, header in enumerate(headers):
        numbers = bool(cells) and all(isinstance(row[column], int) for row in cells)
        shown.add_column(header, justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        shown.add_row(*map(str, row))
    out = console()
    if not out.is_terminal:
        out.width = FILE_WIDTH  # ids in one piece, for grep
    out.print(shown)
