"""Files of predictions: ``{"task_id", "prediction"}`` or SWE-bench's ``{"instance_id", "model_patch"}``.

Agents write one file for all (``preds.json``: id -> prediction) or one for each (``ID.pred``); both are read too.
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..envs.datasets.files import SourceRow, read_rows
from ..envs.datasets.folders import read_source
from ..envs.task import Task
from ..errors import TaskError
from .suites.spec import Prediction, Suite

FORMS = (
    ("task_id", "prediction"),
    ("instance_id", "model_patch"),
    ("task_id", "completion"),
    ("task_id", "solution"),
    ("question_id", "code_list"),
)
"""(id, text) of a row; further keys are kept and ignored here. The last is LiveCodeBench's: several texts a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A prediction and its task.

    Attributes:
        index: which of the task's predictions, from 0, in the file's order.
    """

    task: Task
    prediction: Prediction
    index: int

    @property
    def key(self) -> tuple[str, int]:
        return self.task.id, self.index


def read_predictions(path: Path) -> list[Prediction]:
    """Predictions of a JSON Lines, JSON, Parquet or Arrow file, in its order; of a ``preds.json``, whose ids name their
    predictions; of a folder, its ``.pred`` files or else its other files.

    Raises:
        TaskError: the file is missing, broken or empty; a row has neither form, or another than those before it.
    """
    rows = [one for row in _source_rows(path) for one in _by_id(row)]
    if not any(row.value for row in rows):
        raise TaskError(f"{path} holds no prediction; a row is {_told(FORMS[0])} or {_told(FORMS[1])}")
    form = _form_of(rows[0])
    for row in rows:
        if _form_of(row) != form:
            raise TaskError(f"{row.where}: has {_told(_form_of(row))}, the rows before it {_told(form)}; use one form")
    return [prediction for row in rows for prediction in _predictions(row, form)]


def _source_rows(path: Path) -> Iterator[SourceRow]:
    files = sorted(path.rglob("*.pred")) if path.is_dir() else []
    if not files:
        yield from read_source(path)
    for file in files:
        yield from read_rows(file)


def _by_id(row: SourceRow) -> list[SourceRow]:
    """The predictions of a row; of one that maps ids to predictions, as SWE-agent and mini-swe-agent write it, each.

    A value without an id has its key as such; one that is text alone is the patch.
    """
    if any(all(key in row.value for key in form) for form in FORMS) or not row.value:
        return [row]
    values = list(row.value.values())
    mapped = all(isinstance(value, dict) and "model_patch" in value for value in values)
    if not mapped and not all(isinstance(value, str) and _is_patch(value) for value in values):
        return [row]
    return [
        SourceRow(
            where=f"{row.where}, {name!r}",
            value={"instance_id": name, **(value if isinstance(value, dict) else {"model_patch": value})},
        )
        for name, value in row.value.items()
    ]


def _is_patch(text: str) -> bool:
    return not text.strip() or re.search(r"^(diff --git |--- )", text, re.M) is not None


def match(suite: Suite, tasks: Sequence[Task], predictions: Sequence[Prediction]) -> list[Job]:
    """Find the task of each prediction.

    Raises:
        TaskError: a prediction is for no task of the suite (the message has its row and the nearest id).
    """
    by_id = {task.id: task for task in tasks}
    counts: dict[str, int] = {}
    jobs, unknown = [], []
    for prediction in predictions:
        task_id = suite.resolve(prediction)
        if task_id not in by_id:
            unknown.append((prediction, task_id))
            continue
        jobs.append(Job(task=by_id[task_id], prediction=prediction, index=counts.get(task_id, 0)))
        counts[task_id] = counts.get(task_id, 0) + 1
    if unknown:
        prediction, task_id = unknown[0]
        near = difflib.get_close_matches(task_id[:200], by_id, n=1, cutoff=0.6)
        hint = f", the nearest is {near[0]!r}" if near else f", which has ids such as {tasks[0].id!r}"
        more = f" ({len(unknown)} such rows)" if len(unknown) > 1 else ""
        raise TaskError(
            f"{prediction.where}: no task {task_id!r} in the data{hint}{more}; give the file the predictions are for"
        )
    return jobs


def _form_of(row: SourceRow) -> tuple[str, str]:
    for form in FORMS:
        if all(key in row.value for key in form):
            return form
    keys = ", ".join(sorted(map(str, row.value))) or "no key"
    raise TaskError(f"{row.where}: a prediction has {_told(FORMS[0])} or {_told(FORMS[1])}; this row has {keys}")


def _predictions(row: SourceRow, form: tuple[str, str]) -> list[Prediction]:
    texts = row.value[form[1]]
    if form[1] != "code_list":
        return [_prediction(row, form, texts)]
    if not isinstance(texts, list):
        raise TaskError(f"{row.where}: code_list is a {type(texts).__name__}; a list of programs is expected")
    return [_prediction(row, form, text) for text in texts]


def _prediction(row: SourceRow, form: tuple[str, str], text: Any) -> Prediction:
    given_id = row.value[form[0]]
    if isinstance(given_id, bool) or not isinstance(given_id, str | int):
        raise TaskError(f"{row.where}: {form[0]} is {given_id!r}; text or an integer is expected")
    if text is not None and not isinstance(text, str):
        raise TaskError(f"{row.where}: {form[1]} is a {type(text).__name__}; text, or null for none, is expected")
    fields: dict[str, Any] = dict(row.value)
    return Prediction(where=row.where, task_id=str(given_id), given_id=given_id, text=text or "", fields=fields)


def _told(form: tuple[str, str]) -> str:
    return f'{{"{form[0]}", "{form[1]}"}}'
