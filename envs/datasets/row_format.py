"""What a published training set's format is: how its rows are told, and how one becomes a task."""

import ast
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import TaskError
from ..task import Task

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFormat:
    """A published format of training rows.

    Attributes:
        name: the word of recipes and the command line.
        tells: whether a row is in this format, by its keys.
        task_of: the task of a row. Raises TaskError where the row cannot be used: the message is the reason, in words
            that are the same for all rows that have it.
    """

    name: str
    tells: Callable[[Row], bool]
    task_of: Callable[[Row], Task]


def has(*keys: str) -> Callable[[Row], bool]:
    """A test of rows: whether they have all of these keys."""
    return lambda row: all(key in row for key in keys)


def text_at(row: Row, key: str) -> str:
    """A column that must be text with something in it.

    Raises:
        TaskError: it is not.
    """
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise TaskError(f"no {key}")
    return value.strip()


def structure_at(row: Row, key: str) -> Any:
    """A column that is a structure, or one written as JSON or as Python writes it (some sets have either).

    Raises:
        TaskError: it can be read as neither.
    """
    value = row.get(key)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise TaskError(f"{key} is not JSON") from None


def said_by_the_user(prompt: Any) -> str:
    """The question of a prompt that is a list of messages, or text.

    Raises:
        TaskError: there is none.
    """
    if isinstance(prompt, str):
        return prompt.strip()
    messages = prompt if isinstance(prompt, list | tuple) else ()
    said = [one["content"] for one in messages if isinstance(one, Mapping) and one.get("role") == "user"]
    if not said or not isinstance(said[-1], str) or not said[-1].strip():
        raise TaskError("no question in prompt")
    return said[-1].strip()


def task_from(set_name: str, family: str, prompt: str, hidden: Mapping[str, Any], row: Row, *labels: str) -> Task:
    """A task whose id is made of what it asks: the same in every file, order and version of the set.

    Args:
        labels: columns of the row worth reporting by.
    """
    digest = hashlib.sha256(" ".join(prompt.split()).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    known = {key: row[key] for key in labels if isinstance(row.get(key), str | int | float) and row[key] != ""}
    return Task(
        id=f"{set_name}-{digest}", family=family, prompt=prompt, hidden=hidden, metadata={"set": set_name, **known}
    )
