"""Tasks of a training set as it is published: a file, a folder of files, or a dataset on the hub."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError, TaskError
from ..task import Task
from .files import SourceRow
from .folders import read_source
from .harbor import PREFIX as HARBOR
from .harbor import harbor_rows
from .hub import HUB, rows_named
from .math_rows import MATH_FORMATS
from .program_rows import PROGRAM_FORMATS
from .row_format import Row, RowFormat
from .swe_sources import is_swe_row

logger = logging.getLogger(__name__)

TASKS, SWE = "tasks", "swe"
FORMATS: dict[str, RowFormat] = {one.name: one for one in (*PROGRAM_FORMATS, *MATH_FORMATS)}
FORMAT_NAMES = (TASKS, SWE, *FORMATS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A row that became no task.

    Attributes:
        where: it stands, or the id of its task.
        reason: in words that are the same for all rows that have it.
        detail: what is of this row alone.
    """

    where: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Tasks of a training set, and what became of every other row: tasks and ``left_out`` add up to the rows."""

    tasks: tuple[Task, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def num_rows(self) -> int:
        return len(self.tasks) + len(self.left_out)

    @property
    def reasons(self) -> dict[str, int]:
        """Reason -> rows, the commonest first."""
        return dict(Counter(one.reason for one in self.left_out).most_common())

    def summary(self) -> str:
        """One line: how many rows became tasks, and why the others did not."""
        if not self.left_out:
            return f"{self.num_rows} rows, all of them tasks"
        reasons = "; ".join(f"{count}: {reason}" for reason, count in self.reasons.items())
        return f"{len(self.tasks)} of {self.num_rows} rows are tasks, {len(self.left_out)} are left out ({reasons})"


def load_training_set(source: str | Path, *, row_format: str = "auto") -> TrainingSet:
    """Read a training set.

    Args:
        source: a file (JSON Lines, JSON, Parquet, Arrow), a folder of such files (of several splits "train" is taken),
            "hub:OWNER/NAME[/CONFIG[/SPLIT]]", or "harbor:FOLDER" of tasks in Harbor's format.
        row_format: a word of ``FORMAT_NAMES``; "auto" tells it by the keys of the first row.
    Returns:
        tasks in the rows' order, each problem once.
    Raises:
        ConfigError: the format is unknown or cannot be told, or the hub does not answer.
        TaskError: a file is missing or broken; a row of "tasks" or "swe", which are verigym's own, cannot be used; or
            no row can.
    """
    rows = rows_of(source)
    if not rows:
        raise TaskError(f"{source} has no rows; give a training set with at least one")
    name = row_format if row_format != "auto" else _told_by(rows[0].value, str(source))
    if name in (TASKS, SWE):
        return TrainingSet(tasks=tuple(_own_tasks(rows, source)), left_out=())
    if name not in FORMATS:
        raise ConfigError(f"no format {name!r}; known: auto, {', '.join(FORMAT_NAMES)}")
    found = _convert(rows, FORMATS[name])
    if not found.tasks:
        raise TaskError(f"{source}, read as {name!r}: no row can be used; {found.summary()}")
    return found


def read_tasks_of(source: str | Path, *, row_format: str = "auto") -> Sequence[Task]:
    """The tasks of ``load_training_set``; rows left out are counted, with reasons, in the log."""
    found = load_training_set(source, row_format=row_format)
    if found.left_out:
        logger.warning("%s: %s", source, found.summary())
    return found.tasks


def rows_of(source: str | Path) -> list[SourceRow]:
    """The rows of a source, as ``load_training_set`` takes it. Raises as there."""
    if isinstance(source, str) and source.startswith(HUB):
        return rows_named(source)
    if str(source).startswith(HARBOR):  # a path of the command line, too
        return harbor_rows(source)
    return list(read_source(source, split="train"))


def folder_of(source: str | Path) -> Path:
    """Where a source's relative paths are looked for."""
    return Path(source) if Path(source).is_dir() else Path(source).parent


def _told_by(row: Row, source: str) -> str:
    if is_swe_row(row):
        return SWE
    if all(isinstance(row.get(key), str) for key in ("id", "family", "prompt")):
        return TASKS
    for one in FORMATS.values():
        if one.tells(row):
            return one.name
    raise ConfigError(
        f"{source}: no known format has rows with the keys {', '.join(sorted(map(str, row)))}; known formats: "
        f"{', '.join(FORMAT_NAMES)}. Say format = NAME if it is one of them, or convert the rows"
    )


def _own_tasks(rows: Iterable[SourceRow], source: str | Path) -> Iterable[Task]:
    from .swe import any_task_of

    for row in rows:
        try:
            yield any_task_of(dict(row.value), folder=folder_of(source))
        except TaskError as error:
            raise TaskError(f"{row.where}: {error}") from None


def _convert(rows: Iterable[SourceRow], row_format: RowFormat) -> TrainingSet:
    tasks: dict[str, Task] = {}
    left_out: list[LeftOut] = []
    for row in rows:
        try:
            task = row_format.task_of(row.value)
        except TaskError as error:
            left_out.append(LeftOut(where=row.where, reason=str(error)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"not in the form of {row_format.name}"
            left_out.append(LeftOut(where=row.where, reason=reason, detail=f"{type(error).__name__}: {error}"))
        else:
            if task.id in tasks:
                left_out.append(LeftOut(where=row.where, reason="the same problem as an earlier row", detail=task.id))
            else:
                tasks[task.id] = task
    return TrainingSet(tasks=tuple(tasks.values()), left_out=tuple(left_out))
