"""A task: what an episode is about, and the checks the agent never sees."""

import json
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import TaskError
from .runs.files import written_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem with a checkable outcome.

    Attributes:
        id: unique within its data set.
        family: "swe", "code", "math", or a plug-in's own word.
        prompt: what the agent is asked.
        image: container image the task runs in; None where the family needs none or builds from ``files``.
        files: path -> text, visible to the agent in its working directory.
        hidden: checks and gold answers. Never shown to the agent, never in its sandbox.
        metadata: anything worth reporting by (difficulty, repository, split, ...).
    """

    id: str
    family: str
    prompt: str
    image: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    hidden: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def own_copy(self) -> "Task":
        """The same task, whose files, hidden and metadata nobody else holds: what a hook changes in them is gone with
        its episode.

        Raises:
            TaskError: they hold what cannot be copied, and so is not JSON.
        """
        try:
            own = {name: deepcopy(dict(getattr(self, name))) for name in ("files", "hidden", "metadata")}
        except Exception as error:
            raise TaskError(
                f"task {self.id!r} cannot be copied ({error}); files, hidden and metadata hold JSON"
            ) from error
        return replace(self, **own)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Task":
        """Build a task from a row that ``to_json`` wrote; unknown keys are ignored.

        Raises:
            TaskError: a required key is missing or of another type.
        """
        for key in ("id", "family", "prompt"):
            if not isinstance(row.get(key), str):
                raise TaskError(f"a task needs the key {key!r} as a string; this row has {sorted(row)}")
        known = {key: row[key] for key in cls.__dataclass_fields__ if key in row}
        return cls(**known)


def read_jsonl(path: str | Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON Lines file; empty lines are skipped.

    Raises:
        TaskError: the file is missing, or a line is not a JSON object (the message has its number).
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise TaskError(
                        f"{path}, line {number}: not JSON ({error}); one object a line is expected"
                    ) from None
                if not isinstance(row, dict):
                    raise TaskError(f"{path}, line {number}: a JSON object is expected, this is a {type(row).__name__}")
                yield row
    except FileNotFoundError:
        raise TaskError(f"{path}: no such file; give the path of a JSON Lines file") from None
    except (IsADirectoryError, PermissionError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: cannot be read as UTF-8 JSON Lines ({error})") from None


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as JSON Lines, whole or not at all (a temporary file beside it is renamed). Returns their number."""
    path = Path(path)
    count = 0
    with written_whole(path) as out:
        for row in rows:
            out.write(json.dumps(row) + "\n")  # ASCII: a lone surrogate has no UTF-8
            count += 1
    return count
