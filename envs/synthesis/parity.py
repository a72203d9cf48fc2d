"""verigym's verdicts beside those of swebench's own ``run_instance``, on the same rows and patches."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import GradingError, SandboxError, TaskError
from ...rewards.swe import tests_status
from ..datasets.files import read_rows
from ..datasets.swe import row_of, task_of
from ..sandbox import labels
from ..sandbox.background import all_or_first_error, on_thread
from ..swe.checkout import backend_for
from ..swe.grading import grade_patch
from ..task import Task

Progress = Callable[[str, int, int], None]

# Run in a folder of its own: swebench writes its logs below the current one. Its containers bear our labels, so that
# what a killed process leaves goes at the next start.
_WORKER = """
import json, sys, docker
from docker.models.containers import ContainerCollection
from swebench.harness.run_evaluation import run_instance
from swebench.types import TestSpec
order, create = json.load(sys.stdin), ContainerCollection.create
ContainerCollection.create = lambda *args, **wanted: create(*args, **wanted, labels=order["labels"])
spec = TestSpec(**order["spec"])
prediction = {"instance_id": spec.instance_id, "model_name_or_path": "verigym", "model_patch": order["patch"]}
result = run_instance(spec, prediction, docker.from_env(timeout=600), order["run_id"], order["timeout"])
print("\\n@@" + json.dumps(result[1][spec.instance_id] if result else None))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A task and a patch of it. ``kind`` is "gold", "empty" or where the prediction stands."""

    task: Task
    kind: str
    patch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two verdicts on one patch.

    Attributes:
        ours, theirs: "resolved", "unresolved", or "error"; theirs "" where swebench was not asked.
        our_seconds, their_seconds: wall clock of the whole grading.
        detail: how they differ; "" where they do not.
    """

    task_id: str
    repo: str
    kind: str
    ours: str
    theirs: str
    our_seconds: float
    their_seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryCounts:
    """What was found of a repository's rows. ``gold`` and ``empty`` are rows that these patches resolve; ``compared``
    are patches that swebench graded too, ``differ`` those of them that it grades otherwise."""

    repo: str
    rows: int
    gold: int
    empty: int
    compared: int
    differ: int
    minutes: float


def pairs_of(rows: Path, predictions: Path | None, *, limit: int | None = None) -> list[Pair]:
    """What to grade: the gold and the empty patch of each row, or a file of predictions.

    Raises:
        TaskError: a file cannot be used, or a row has no image or eval_script.
    """
    tasks = [task_of(dict(row.value), folder=rows.parent) for row in read_rows(rows)][:limit]
    for task in tasks:
        row = row_of(task)
        if not row.image or not row.eval_script:
            raise TaskError(f"{task.id}: swebench needs the fields 'image' and 'eval_script'; build-images writes them")
    if predictions is None:
        return [
            Pair(task=task, kind=kind, patch=patch)
            for task in tasks
            for kind, patch in (("gold", row_of(task).patch), ("empty", ""))
        ]
    by_id = {task.id: task for task in tasks}
    return [
        Pair(task=by_id[row.value["instance_id"]], kind=row.where, patch=row.value.get("model_patch") or "")
        for row in read_rows(predictions)
        if row.value.get("instance_id") in by_id
    ]


async def compare(
    pairs: Sequence[Pair],
    *,
    timeout_s: int,
    workers: int = 1,
    compared_rows: int | None = None,
    progress: Progress | None = None,
) -> list[Compared]:
    """Grade each pair twice, by verigym and then by swebench; ``workers`` pairs at once.

    Args:
        compared_rows: of each repository so many rows are graded by swebench too, the first ones; None: all.
    Raises:
        SandboxError: there is no Docker. GradingError: swebench could not be started.
    """
    tell = progress or (lambda what, done, total: None)
    room = asyncio.Semaphore(workers)
    done = 0
    asked = _first_of_each(pairs, compared_rows)
    tell("gradings compared", 0, len(pairs))

    async def one(pair: Pair) -> Compared:
        nonlocal done
        async with room:
            found = await _compare(pair, timeout_s, by_swebench=pair.task.id in asked)
        done += 1
        tell("gradings compared", done, len(pairs))
        return found

    return await all_or_first_error([one(pair) for pair in pairs])


def disagreements(results: Sequence[Compared]) -> list[Compared]:
    """Those whose verdicts or per-test sets differ."""
    return [one for one in results if one.detail]


def count(results: Sequence[Compared]) -> list[RepositoryCounts]:
    """The results by repository, in the order of their names, and all of them at the end."""
    repos = sorted({one.repo for one in results})
    parts = [(repo, [one for one in results if one.repo == repo]) for repo in repos]
    return [_counts(repo, part) for repo, part in [*parts, ("all", results)]]


def _counts(repo: str, results: Sequence[Compared]) -> RepositoryCounts:
    return RepositoryCounts(
        repo=repo,
        rows=len({one.task_id for one in results}),
        gold=sum((one.kind, one.ours) == ("gold", "resolved") for one in results),
        empty=sum((one.kind, one.ours) == ("empty", "resolved") for one in results),
        compared=sum(one.theirs != "" for one in results),
        differ=len(disagreements(results)),
        minutes=sum(one.our_seconds + one.their_seconds for one in results) / 60,
    )


def _first_of_each(pairs: Sequence[Pair], number: int | None) -> set[str]:
    """Ids of the first rows of each repository."""
    of_repo: dict[str, list[str]] = {}
    for pair in pairs:
        ids = of_repo.setdefault(row_of(pair.task).repo, [])
        if pair.task.id not in ids:
            ids.append(pair.task.id)
    return {one for ids in of_repo.values() for one in ids[:number]}


async def _compare(pair: Pair, timeout_s: int, *, by_swebench: bool) -> Compared:
    row = row_of(pair.task)
    started = time.monotonic()
    try:
        score, report = await grade_patch(backend_for(row, "docker"), pair.task, pair.patch, timeout_s=timeout_s)
        ours, ours_tests = (
            ("resolved" if score.passed else "unresolved"),
            _failures(tests_status(report, row.FAIL_TO_PASS, row.PASS_TO_PASS)),
        )
        said = score.detail
    except (SandboxError, GradingError, TaskError) as error:
        ours, ours_tests, said = "error", frozenset(), str(error)
    middle = time.monotonic()
    found = await on_thread(run_instance, pair.task, pair.patch, timeout_s=timeout_s) if by_swebench else None
    theirs = "" if not by_swebench else "error" if found is None else "resolved" if found["resolved"] else "unresolved"
    detail = ""
    if not by_swebench:
        detail = f"verigym cannot grade it: {said}" if ours == "error" else ""
    elif ours != theirs:
        detail = f"verigym says {ours} ({said}), swebench {theirs}"
    elif found is not None and "tests_status" in found:
        differ = sorted(ours_tests ^ _failures(found["tests_status"]))
        detail = f"the verdict is the same, these tests differ: {', '.join(differ[:5])}" if differ else ""
    return Compared(
        task_id=pair.task.id,
        repo=row.repo,
        kind=pair.kind,
        ours=ours,
        theirs=theirs,
        our_seconds=middle - started,
        their_seconds=time.monotonic() - middle,
        detail=detail,
    )


def run_instance(task: Task, patch: str, *, timeout_s: int) -> Mapping[str, Any] | None:
    """swebench's report of a patch; None where it says that it could not grade it.

    Raises:
        GradingError: it could not be started.
    """
    row = row_of(task)
    lines = row.eval_script.removeprefix("#!/bin/bash\n").removeprefix("set -uxo pipefail\n").rstrip("\n").split("\n")
    spec = {
        "instance_id": row.instance_id,
        "image": row.image,
        "eval_script_list": lines,
        "repo": row.repo,
        "version": row.version,
        "FAIL_TO_PASS": list(row.FAIL_TO_PASS),
        "PASS_TO_PASS": list(row.PASS_TO_PASS),
        "log_parser": row.parser,
        "eval_type": row.eval_type,
    }
    with tempfile.TemporaryDirectory(prefix="verigym-parity-") as folder:
        order = {"spec": spec, "patch": patch, "run_id": Path(folder).name, "timeout": timeout_s}
        order["labels"] = labels.labels()
        done = subprocess.run(
            [sys.executable, "-c", _WORKER],
            input=json.dumps(order),
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    _, mark, answer = done.stdout.rpartition("\n@@")
    if done.returncode or not mark:
        raise GradingError(f"swebench could not be run: {done.stderr.strip()[-400:]}")
    return json.loads(answer)


def _failures(tests: Mapping[str, Mapping[str, Sequence[str]]]) -> frozenset[str]:
    return frozenset(test for name in ("FAIL_TO_PASS", "PASS_TO_PASS") for test in tests[name]["failure"])
