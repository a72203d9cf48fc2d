"""SWE tasks from small repositories: written, broken by the same operators as any code, and proven by their tests."""

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ...errors import TaskError
from ..sandbox.types import SandboxBackend
from ..task import write_jsonl
from .make import synthesize_tree
from .operators import OPERATORS
from .small_repositories import write_small_repository
from .sources import tree_source

MODULES_PER_REPOSITORY = 12
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
    while (done := len(rows)) < num:
        missing = min(MODULES_PER_REPOSITORY, num - done)
        name = f"small-{'held-out' if held_out else 'train'}-{number}"
        with TemporaryDirectory() as folder:
            tree = Path(folder) / "tree"
            write_small_repository(
                tree, seed=seed * 1000 + number, held_out=held_out, num_modules=MODULES_PER_REPOSITORY
            )
            source = tree_source(tree, name=name, version=str(seed), requirements=REQUIREMENTS)
            found = await synthesize_tree(
                source,
                out=path.parent / f"{path.stem}.{number}.jsonl",
                limit=missing,
                seed=seed,
                backend=backend,
                workers=workers,
                operators={"arithmetic_operator": OPERATORS["arithmetic_operator"]},
                confirm=False,
                progress=lambda stage, made, total, done=done: progress(done + made),
            )
        if not found:
            raise TaskError(f"the small repository {name} gave no task; nothing of it fails when an operator changes")
        rows += [{**row, "problem_statement": _in_one_line(row["problem_statement"])} for row in found]
        number += 1
    write_jsonl(path, rows)


def _in_one_line(statement: str) -> str:
    """The report as a tiny model reads it; the statement itself where it has another form."""
    found = REPORT.search(statement)
    if found is None:
        return statement
    return f"The function {found['name']} gives {found['got']} for {found['arguments']}, expected {found['expected']}."
