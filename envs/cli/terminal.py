"""Progress on stderr and tables on stdout, for people."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ...terminal import console, text_column

FILE_WIDTH = 200


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar with elapsed and remaining time; yields ``tell(what, done, total)``, total 0 where it is not known."""
    columns = (text_column("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            progress.update(bar, description=what, completed=done, total=total or None)

        yield tell


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
