"""SWE tasks from small repositories: written, broken by the same operators as any code, and proven by their tests."""

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...errors import TaskError
from ..sandbox.background import all_or_first_error
from ..sandbox.types import SandboxBackend
from ..task import write_jsonl
from .make import Progress, synthesize_tree
from .operators import OPERATORS
from .small_repositories import write_small_repository
from .sources import tree_source

MODULES_PER_REPOSITORY = 24
"""And as many tasks, so that hardly two tasks are about the same function."""
REQUIREMENTS = ("pytest==9.2.0",)
REPORT = re.compile(
    r"assert (?P<name>\w+)\((?P<arguments>[^)]*)\) == (?P<expected>-?\d+)\n.*?result was `(?P<got>[^`]+)`", re.S
)


async def write_small_repository_tasks(
    path: Path,
    *,
    num: int,
    seed: int,
    held_out: bool,
    backend: SandboxBackend,
    workers: int,
    progress: Callable[[int], None] = lambda made: None,
) -> None:
    """Write ``num`` rows in SWE-bench's schema, and their repositories' archives beside them.

    Every bug is an arithmetic operator that a comment contradicts; each row's failing and passing tests were run.

    Args:
        path: the rows file.
        held_out: which half of the names the repositories draw from (see ``write_small_repository``).
        progress: told how many rows there are.
    Raises:
        TaskError: the repositories gave too few tasks.
    """
    rows: list[dict[str, Any]] = []
    number = 0
    while (missing := num - len(rows)) > 0:
        sizes = [min(MODULES_PER_REPOSITORY, missing - start) for start in range(0, missing, MODULES_PER_REPOSITORY)]
        made = dict.fromkeys(range(number, number + min(workers, len(sizes))), 0)
        tell = _sum_of(made, len(rows), progress)
        # One repository to a worker: measuring a clean tree's tests is work for one, and there are many trees.
        found = await all_or_first_error(
            [
                _tasks_of_one(path, one, size, seed=seed, held_out=held_out, backend=backend, tell=tell(one))
                for one, size in zip(made, sizes)
            ]
        )
        number += len(made)
        rows += [{**row, "problem_statement": _in_one_line(row["problem_statement"])} for some in found for row in some]
    write_jsonl(path, rows)


def _sum_of(made: dict[int, int], before: int, progress: Callable[[int], None]) -> Callable[[int], Progress]:
    """For each of several at work: a Progress that tells how much all of them have made, and what was there before."""

    def of(one: int) -> Progress:
        def tell(stage: str, done: int, total: int) -> None:
            made[one] = done
            progress(before + sum(made.values()))

        return tell

    return of


async def _tasks_of_one(
    path: Path, number: int, limit: int, *, seed: int, held_out: bool, backend: SandboxBackend, tell: Progress
) -> list[dict[str, Any]]:
    """Rows of the small repository with this number; their archives go into a folder beside ``path``."""
    name = f"small-{'held-out' if held_out else 'train'}-{number}"
    with TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        write_small_repository(tree, seed=seed * 1000 + number, held_out=held_out, num_modules=MODULES_PER_REPOSITORY)
        found = await synthesize_tree(
            tree_source(tree, name=name, version=str(seed), requirements=REQUIREMENTS),
            out=path.parent / f"{path.stem}.{number}.jsonl",
            limit=limit,
            seed=seed,
            backend=backend,
            workers=1,
            operators={"arithmetic_operator": OPERATORS["arithmetic_operator"]},
            confirm=False,
            progress=tell,
        )
    if not found:
        raise TaskError(f"the small repository {name} gave no task; nothing of it fails when an operator changes")
    return found


def _in_one_line(statement: str) -> str:
    """The report as a tiny model reads it; the statement itself where it has another form."""
    found = REPORT.search(statement)
    if found is None:
        return statement
    return f"The function {found['name']} gives {found['got']} for {found['arguments']}, expected {found['expected']}."
