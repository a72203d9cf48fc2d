"""Suites of task rows: what ``Task.to_json`` wrote, and SWE-bench rows with an archive."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...envs.core import CutOff, ToolEnv
from ...envs.datasets.files import SourceRow
from ...envs.registry.ids import FAMILY_ENVS
from ...envs.registry.opening import open_env
from ...envs.sandbox.background import call
from ...envs.task import Task
from ...errors import TaskError
from ...rewards.score import Score
from .spec import GradeOptions, LoadOptions, Prediction, Suite, is_cut_off


def tasks_of_rows(rows: Sequence[SourceRow], options: LoadOptions) -> list[Task]:
    """Tasks as written by ``Task.to_json``, or of rows of SWE-bench and the training sets in other schemas."""
    tasks = []
    for row in rows:
        try:
            tasks.append(_task_of(row, options))
        except TaskError as error:
            raise TaskError(f"{row.where}: {error}") from None
    return tasks


def _task_of(row: SourceRow, options: LoadOptions) -> Task:
    from ...envs.datasets.swe import any_task_of

    return any_task_of(dict(row.value), folder=options.folder or Path())


class RowGrader:
    """Grades a text as the environment of its task would grade a final message, and a patch from base alone."""

    def __init__(self, options: GradeOptions) -> None:
        self._options = options
        self._envs: dict[str, ToolEnv] = {}

    async def grade(self, task: Task, prediction: Prediction) -> Score:
        if task.family == "swe":
            from ...envs.sandbox.choose import make_backend
            from ...envs.swe.grading import TEST_TIMEOUT_S, grade_patch

            timeout_s = self._options.test_timeout_s or TEST_TIMEOUT_S
            backend = make_backend(self._options.sandbox)
            rule = self._options.untrusted
            score, _ = await grade_patch(backend, task, prediction.text, timeout_s=timeout_s, untrusted=rule)
            return score
        if task.family not in self._envs:
            if task.family not in FAMILY_ENVS:
                raise TaskError(f"no environment grades the family {task.family!r}")
            offered: dict[str, Any] = {"sandbox": self._options.sandbox, "lenient": self._options.lenient}
            self._envs[task.family] = open_env(FAMILY_ENVS[task.family], offered)
        env = self._envs[task.family]
        await call(env.check, task)
        text = CutOff(prediction.text) if is_cut_off(prediction) else prediction.text
        return await call(env.score, task, text)

    async def aclose(self) -> None:
        """Sandboxes end with each grading."""


def _suite(name: str, about: str, families: Sequence[str]) -> Suite:
    env_ids = {family: FAMILY_ENVS[family] for family in families}
    test_timeout_s = 1_800.0 if "swe" in families else None
    return Suite(
        name=name,
        about=about,
        env_ids=env_ids,
        tasks_of=tasks_of_rows,
        make_grader=RowGrader,
        test_timeout_s=test_timeout_s,
    )


SUITES = (
    _suite("code", "task rows of the family code, as JSON Lines", ["code"]),
    _suite("math", "task rows of the family math, as JSON Lines", ["math"]),
    _suite(
        "tasks",
        "task rows of any of these families, each in its own environment, as JSON Lines",
        ["swe", "code", "math"],
    ),
)
