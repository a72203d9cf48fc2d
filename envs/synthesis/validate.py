"""Whether tasks hold: the gold patch is graded 1 and the empty one 0, every time."""

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import GradingError, TaskError
from ...rewards.swe import PASSING
from ..datasets.swe import any_task_of, row_of
from ..datasets.swe_sources import is_swe_row
from ..datasets.training import folder_of, rows_of
from ..sandbox.background import all_or_first_error
from ..sandbox.types import Limits, SandboxBackend
from ..swe.checkout import placed
from ..swe.grading import TEST_TIMEOUT_S, grade_patch, run_hidden_tests
from ..task import Task, write_jsonl
from .rows import archives_of

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What the gradings of one task said.

    Attributes:
        row: as it was read.
        golds, empties: scores, in words ("1 1 1").
        problem: why the task does not hold; "" where it does.
        quarantined: PASS_TO_PASS tests that passed in some gold runs and not in others; the row to keep has them under
            "QUARANTINED" instead.
    """

    task_id: str
    row: dict[str, Any]
    golds: str
    empties: str
    problem: str
    quarantined: tuple[str, ...] = ()


async def validate_tasks(
    path: str | Path,
    *,
    backend: SandboxBackend,
    times: int,
    workers: int,
    progress: Progress | None = None,
    timeout_s: float = TEST_TIMEOUT_S,
) -> list[Check]:
    """Grade the gold and the empty patch of every row of a source of "swe" tasks (``datasets.training``).

    Args:
        times: how often each is graded; a verdict that changes is a flaky task.
        workers: tasks graded at once.
        timeout_s: wall-clock seconds of one run of a task's tests.
    Returns:
        One check a row, in the source's order; a row that cannot be graded does not hold.
    Raises:
        TaskError: the source or a row cannot be read. SandboxError: a sandbox failed.
    """
    tell = progress or (lambda what, done, total: None)
    rows = [dict(row.value) for row in rows_of(path)]
    tasks = [any_task_of(row, folder=folder_of(path)) for row in rows]
    if not tasks:
        raise TaskError(f"{path} has no rows; there is nothing to validate")
    free = asyncio.Semaphore(workers)
    done = 0
    tell("tasks validated", 0, len(tasks))

    async def one(row: dict[str, Any], task: Task) -> Check:
        nonlocal done
        async with free:
            check = await check_task(backend, row, task, times=times, timeout_s=timeout_s)
        done += 1
        tell("tasks validated", done, len(tasks))
        return check

    return await all_or_first_error([one(row, task) for row, task in zip(rows, tasks, strict=True)])


def kept_rows(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """The rows of the tasks that hold."""
    return [check.row for check in checks if not check.problem]


def write_kept(source: str | Path, out: Path, checks: Sequence[Check]) -> None:
    """Write the rows that hold as JSON Lines, in the schema they have; into another folder their archives are copied
    too. What ``grade``, ``eval`` and training read is a row of any of these schemas."""
    # A table may hold dates, which JSON has as text.
    write_jsonl(
        out, copy_archives(source, out, [json.loads(json.dumps(row, default=str)) for row in kept_rows(checks)])
    )


def copy_archives(source: str | Path, out: Path, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a source as they are to stand in ``out``: in another folder their archives are copied beside it."""
    rows = list(rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    if folder_of(source).resolve() != out.parent.resolve():
        for number, row in enumerate(rows):
            if not row.get("archive"):
                continue
            archive = folder_of(source) / row["archive"]
            if not archive.is_file():
                continue  # whoever opens the task is told
            copy = archives_of(out) / archive.name
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(archive, copy)
            rows[number] = {**row, "archive": f"{copy.parent.name}/{copy.name}"}
    return rows


async def check_task(
    backend: SandboxBackend, row: dict[str, Any], task: Task, *, times: int, timeout_s: float
) -> Check:
    """Grade the gold and the empty patch of one row of "swe" so often, each in fresh sandboxes.

    Raises:
        SandboxError: a sandbox failed.
    """
    parsed = row_of(task)
    try:
        flaky = await _flaky_tests(backend, task, times, timeout_s) if times > 1 else ()
    except TaskError as error:
        return Check(task_id=task.id, row=row, golds="-", empties="-", problem=f"cannot be graded: {error}")
    if flaky:
        kept = [test for test in parsed.PASS_TO_PASS if test not in flaky]
        changes = {"PASS_TO_PASS": json.dumps(kept), "QUARANTINED": list(flaky)}
        row = {**row, **changes} if is_swe_row(row) else {**row, "hidden": {**row["hidden"], **changes}}
        task = replace(task, hidden={**task.hidden, "PASS_TO_PASS": kept})
    golds, empties, why = [], [], ""
    for _ in range(times):
        for patch, scores in ((parsed.patch, golds), ("", empties)):
            try:
                score, _ = await grade_patch(backend, task, patch, timeout_s=timeout_s)
            except (GradingError, TaskError) as error:
                why, score = str(error), None
            scores.append("-" if score is None else f"{score.value:g}")
            if scores is golds and score is not None and not score.passed:
                why = score.detail
    return Check(
        task_id=task.id,
        row=row,
        golds=" ".join(golds),
        empties=" ".join(empties),
        problem=problem_of_scores(golds, empties, why),
        quarantined=flaky,
    )


async def _flaky_tests(backend: SandboxBackend, task: Task, times: int, timeout_s: float) -> tuple[str, ...]:
    """PASS_TO_PASS tests whose outcome under the gold patch is not the same every time.

    One run is enough to see that all pass; it is repeated as often as asked for only to tell flaky from broken.
    """
    row = placed(row_of(task), backend)
    if row.image and row.eval_script and not row.interpreter:
        return ()
    seen: dict[str, set[bool]] = {test: set() for test in row.PASS_TO_PASS}
    for _ in range(times):
        try:
            problem, report = await run_hidden_tests(backend, row, row.patch, timeout_s=timeout_s, limits=Limits())
        except GradingError:
            return ()
        if problem is not None or not report.complete:
            return ()
        for test in seen:
            seen[test].add(report.statuses.get(test) in PASSING)
    return tuple(test for test, outcomes in seen.items() if len(outcomes) > 1)


def problem_of_scores(golds: Sequence[str], empties: Sequence[str], why: str) -> str:
    """Why a task with these scores, in words, does not hold; "" where it does."""
    if "-" in (*golds, *empties):
        return f"cannot be graded: {why}"
    if len(set(golds)) > 1 or len(set(empties)) > 1:
        return f"flaky: {why}" if why else "flaky"
    if golds[0] != "1":
        return f"gold is not 1: {why}"
    return "" if empties[0] == "0" else "empty is not 0"
