"""SWE tasks from small repositories: each with a bug of its own, proven by running the repository's functions."""

import asyncio
import difflib
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...errors import TaskError
from ..datasets.swe import pack_repository
from ..sandbox.background import all_or_first_error, on_thread_to_its_end
from ..task import write_jsonl
from .rows import CREATED_AT, archives_of
from .small_repositories import (
    KINDS,
    NUM_CALLS,
    NUM_LINES,
    Broken,
    break_module,
    places,
    small_module,
    small_modules,
    write_modules,
)

NUM_MODULES = 3
"""Of a repository; one is broken."""
REQUIREMENTS = ("pytest==9.2.0",)
MAX_ATTEMPTS = 1000


async def write_small_repository_tasks(
    path: Path,
    *,
    num: int,
    seed: int,
    held_out: bool,
    workers: int,
    progress: Callable[[int], None] = lambda made: None,
) -> None:
    """Write ``num`` rows in SWE-bench's schema, and their repositories' archives beside them.

    The bugs are spread evenly over the lines of a module and over kinds, so that no place is a good guess. Every call
    that a test makes was run on the right code, on the broken code, and, for the repository's own test, with the wrong
    one of the two contradictions mended.

    Args:
        path: the rows file.
        held_out: which half of the names the repositories draw from (see ``write_small_repository``).
        workers: archives packed at once.
        progress: told how many rows there are.
    """
    slots, made = asyncio.Semaphore(workers), Counter[str]()

    async def write(number: int) -> dict[str, Any]:
        async with slots:
            row = await on_thread_to_its_end(_row, path, number, seed, held_out)
        made["rows"] += 1
        progress(made["rows"])
        return row

    write_jsonl(path, await all_or_first_error([write(number) for number in range(num)]))


def broken_module(number: int, seed: int, held_out: bool) -> tuple[Broken, random.Random]:
    """The bug of the task with this number, and the draws that follow.

    Raises:
        TaskError: the split has no more tasks, or the tests tell none of many bugs.
    """
    rng, pairs = random.Random(f"{seed}/{held_out}/{number}"), places(held_out=held_out)
    random.Random(f"{seed}/{held_out}").shuffle(pairs)
    if number >= len(pairs):
        raise TaskError(f"this split has {len(pairs)} small repositories, and one more was asked for; ask for fewer")
    for _ in range(MAX_ATTEMPTS):
        module = small_module(*pairs[number], rng)
        broken = break_module(module, rng, bug=number % NUM_LINES, kind=KINDS[number // NUM_LINES % len(KINDS)])
        if broken is not None:
            return broken, rng
    raise TaskError(f"{MAX_ATTEMPTS} small modules gave no bug that their tests tell; mend small_repositories.py")


def _row(path: Path, number: int, seed: int, held_out: bool) -> dict[str, Any]:
    broken, rng = broken_module(number, seed, held_out)
    module = broken.module
    drawn = small_modules(rng, held_out=held_out, num=NUM_MODULES)
    others = [one for one in drawn if one.name != module.name][: NUM_MODULES - 1]
    name = f"small-{seed}-{'held-out' if held_out else 'train'}-{number}__{broken.kind}"
    archive = archives_of(path) / f"{name}.tar.gz"
    with TemporaryDirectory(prefix="verigym-small-") as folder:
        write_modules(Path(folder), [module, *others], {module.name: broken.source})
        commit = pack_repository(folder, archive)
    test_file = f"tests/test_{module.name}.py"
    failing = [f"{test_file}::test_{module.function}_{call}" for call in range(1, NUM_CALLS + 1)]
    passing = [f"tests/test_{one.name}.py::test_{one.function}_1" for one in others]
    return {
        "instance_id": name,
        "repo": name.partition("__")[0],
        "version": str(seed),
        "base_commit": commit,
        "patch": _diff(module.path, broken.source, broken.right_source),
        "test_patch": _diff(test_file, module.tests(), module.tests(NUM_CALLS)),
        "problem_statement": f"{module.path}: {module.function} fails its tests.",
        "created_at": CREATED_AT,
        "environment_setup_commit": commit,
        "FAIL_TO_PASS": json.dumps(failing),
        "PASS_TO_PASS": json.dumps(passing),
        "test_cmd": f"python -m pytest -q {' '.join(dict.fromkeys(t.partition('::')[0] for t in failing + passing))}",
        "env": {"PYTHONPATH": "."},
        "pip_requirements": list(REQUIREMENTS),
        "archive": f"{archive.parent.name}/{archive.name}",
        "operator": broken.kind,
    }


def _diff(path: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), f"a/{path}", f"b/{path}")
    return f"diff --git a/{path} b/{path}\n{''.join(lines)}"
