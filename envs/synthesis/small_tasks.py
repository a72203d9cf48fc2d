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
from .small_repositories import KINDS, NUM_FUNCTIONS, Broken, draw_broken, places, small_modules, write_modules

NUM_MODULES = 2
"""Of a repository; one is broken."""
REQUIREMENTS = ("pytest==9.2.0",)


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

    The bugs are spread evenly over the functions of a module and over kinds, so that no place is a good guess. Every
    call that a test makes was run on the right code and on the broken code.

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
    bug, kind = number % NUM_FUNCTIONS, KINDS[number // NUM_FUNCTIONS % len(KINDS)]
    return draw_broken(*pairs[number], rng, held_out=held_out, bug=bug, kind=kind), rng


def _row(path: Path, number: int, seed: int, held_out: bool) -> dict[str, Any]:
    broken, rng = broken_module(number, seed, held_out)
    module = broken.module
    others = small_modules(rng, held_out=held_out, num=NUM_MODULES - 1, but=[module])
    name = f"small-{seed}-{'held-out' if held_out else 'train'}-{number}__{broken.kind}"
    archive = archives_of(path) / f"{name}.tar.gz"
    with TemporaryDirectory(prefix="verigym-small-") as folder:
        write_modules(Path(folder), [module, *others], {module.name: broken.source})
        commit = pack_repository(folder, archive)
    failing, passing = broken.tests()
    passing += [test for one in others for test in one.test_ids()]
    test_file = f"tests/test_{module.name}.py"
    return {
        "instance_id": name,
        "repo": name.partition("__")[0],
        "version": str(seed),
        "base_commit": commit,
        "patch": _diff(module.path, broken.source, module.source()),
        "test_patch": _diff(test_file, module.tests(), module.tests(thorough=broken.bug)),
        "problem_statement": f"Tests of {module.path} fail.",
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
    """git's patch; "" where nothing differs, since git takes a head without hunks for no patch."""
    if before == after:
        return ""
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), f"a/{path}", f"b/{path}")
    return f"diff --git a/{path} b/{path}\n{''.join(lines)}"
