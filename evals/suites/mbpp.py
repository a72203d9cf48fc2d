"""MBPP: whole, sanitized, and EvalPlus' MBPP+."""

import ast
import re
from collections.abc import Sequence
from typing import Any

from ...envs.datasets.files import SourceRow
from ...envs.task import Task
from ...errors import TaskError
from .programs import CODE_ENV, SuiteGrader, text_of
from .spec import HubSource, LoadOptions, Prediction, Suite

TIME_LIMIT_S = 10.0


def tasks_of(rows: Sequence[SourceRow], options: LoadOptions) -> list[Task]:
    """Tasks of rows with ``test_list`` (and ``test_setup_code`` or ``test_imports``), with ``test``, or with
    ``base_input`` and a canonical solution. ``challenge_test_list`` is no part of the benchmark's score.

    Raises:
        TaskError: a row has no id or no text.
    """
    return [_task_of(row) for row in rows]


def canonical_id(text: str) -> str:
    """The number alone: EvalPlus writes ``Mbpp/2``."""
    return re.sub(r"^mbpp[/_]", "", text, flags=re.IGNORECASE)


def _task_of(row: SourceRow) -> Task:
    task_id = row.value.get("task_id")
    if isinstance(task_id, bool) or not isinstance(task_id, int | str):
        raise TaskError(f"{row.where}: no task_id")
    solution = text_of(row, "code", "canonical_solution", default="")
    entry_point = text_of(row, "entry_point", default="")
    hidden: dict[str, Any] = {"time_limit_s": TIME_LIMIT_S, "memory_mib": 4096}
    if solution.strip():
        hidden["solution"] = solution
    listed = [test for test in row.value.get("test_list") or () if isinstance(test, str)]
    setup = [text_of(row, "test_setup_code", default=""), *(row.value.get("test_imports") or ())]
    whole = text_of(row, "test", default="")
    inputs = [*(row.value.get("base_input") or ()), *(row.value.get("plus_input") or ())]
    code = whole if whole.strip() else "\n".join([*setup, *listed]) if listed else ""
    if code:
        names = names_of(solution) & _read_names(code)
        hidden |= {"test_code": code, "names": tuple(sorted(names))}
        if len(names) == 1:
            hidden["fn_name"] = next(iter(names))
    elif inputs and solution.strip() and entry_point:
        tolerance = float(row.value.get("atol") or 0.0)
        hidden |= {"reference": solution, "fn_name": entry_point, "inputs": inputs, "tolerance": tolerance}
    question = text_of(row, "text", "prompt", default="")
    shown = "\n".join(listed)
    prompt = f"{question}\n\nYour code should pass these tests:\n\n{shown}" if shown else question
    return Task(id=canonical_id(str(task_id)), family="code", prompt=prompt, hidden=hidden)


def names_of(source: str) -> set[str]:
    """What a source defines at its outermost level: these names are the program's, also where Python has its own."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError):
        return set()
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)}


def _read_names(source: str) -> set[str]:
    try:
        return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    except (SyntaxError, ValueError):
        return set()


def _resolve(prediction: Prediction) -> str:
    return canonical_id(prediction.task_id)


SUITES = (
    Suite(
        name="mbpp",
        about="MBPP's rows (task_id, text or prompt, test_list), sanitized ones and MBPP+'s",
        env_ids=CODE_ENV,
        tasks_of=tasks_of,
        make_grader=SuiteGrader,
        resolve=_resolve,
        hub=HubSource(dataset="google-research-datasets/mbpp", config="full", split="test"),
    ),
)
