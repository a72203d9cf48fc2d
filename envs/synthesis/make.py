"""From a source to a file of tasks."""

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..datasets.swe import row_of, task_of
from ..sandbox.background import all_or_first_error
from ..sandbox.types import SandboxBackend
from ..swe.grading import grade_patch
from ..task import Task, write_jsonl
from .mutate import Bug, Candidate, candidates, examine
from .operators import OPERATORS, Operator
from .probing import Baseline, Probe, measure_baseline, open_probe
from .rows import archives_of, make_row
from .sources import Source

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""(what is being done, how much of it is done, how much there is); called on the event loop."""

CHUNK_S = 4.0
MAX_CHUNK = 8
GRADING_SLACK_S = 60.0
GRADING_FACTOR = 20.0


async def synthesize_tree(
    source: Source,
    *,
    out: Path,
    limit: int,
    seed: int,
    backend: SandboxBackend,
    workers: int,
    progress: Progress | None = None,
    confirm: bool = True,
    operators: Mapping[str, Operator] = OPERATORS,
) -> list[dict[str, Any]]:
    """Put bugs into a source and write those worth finding as SWE-bench rows.

    The same source, seed and limit give the same rows, whatever the number of workers, as far as the source's own
    tests are deterministic.

    Args:
        out: the rows file; its repositories' archives go into a folder beside it.
        limit: most tasks to write.
        workers: sandboxes at work at once.
        confirm: keep a task only if the gold patch is graded 1 and the empty one 0.
        operators: kinds of bugs, by name.
    Returns:
        The rows written; fewer than ``limit`` where the source has no more such bugs, none where it has none.
    Raises:
        TaskError: the source's tests cannot be run, or hardly any is without trouble.
        SandboxError: a sandbox failed.
    """
    tell = progress or (lambda stage, done, total: None)
    rows: list[dict[str, Any]] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as boxes:
        # Archives are made aside: those of candidates that are not taken go away with the folder.
        aside = Path(
            boxes.enter_context(TemporaryDirectory(prefix=".verigym-", dir=out.parent, ignore_cleanup_errors=True))
        )
        tell("running the tests without a bug", 0, 0)
        first = await boxes.enter_async_context(open_probe(source, backend))
        baseline = await measure_baseline(first, source)
        order = candidates(source, baseline, seed=seed, operators=operators)
        chunks = _chunks(order, baseline, most=-(-limit // workers))

        async def work(probe: Probe, chunk: Sequence[Candidate]) -> list[dict[str, Any] | None]:
            bugs = await examine(probe, source, baseline, chunk)
            confirming = backend if confirm else None
            return await all_or_first_error(
                [_finish(source, baseline, bug, aside / out.name, confirming) for bug in bugs]
            )

        probes = _Probes(source, backend, boxes, first)
        tried = 0
        async for made in _in_order(chunks, work, probes, workers):
            for row in made:
                tried += 1
                if row is not None and len(rows) < limit:
                    rows.append(row)
                tell(f"bugs tried: {tried} of {len(order)}; tasks", len(rows), limit)
            if len(rows) >= limit:
                break
        _move_archives(rows, aside, out)
        write_jsonl(out, rows)
    return rows


async def is_sound(backend: SandboxBackend, task: Task, *, timeout_s: float) -> str | None:
    """Grade the gold patch, which must get 1, and the empty one, which must get 0.

    Returns:
        None, or what was wrong.
    Raises:
        SandboxError, GradingError: no verdict could be had.
    """
    gold, _ = await grade_patch(backend, task, row_of(task).patch, timeout_s=timeout_s)
    if not gold.passed:
        return f"the gold patch got {gold.value:g}: {gold.detail}"
    empty, _ = await grade_patch(backend, task, "", timeout_s=timeout_s)
    if empty.value > 0:
        return f"the empty patch got {empty.value:g}"
    return None


async def _finish(
    source: Source, baseline: Baseline, bug: Bug | None, out: Path, backend: SandboxBackend | None
) -> dict[str, Any] | None:
    """The row of a bug, confirmed where there is a backend to do it; None where it is not to be used."""
    if bug is None:
        return None
    # Only what git does is on a thread: two that parse at once can fail with a SystemError (python/cpython#106905).
    row = await make_row(source, baseline, bug, out=out)
    if row is None or backend is None:
        return row
    expected_s = baseline.expected_s((*bug.fail_to_pass, *bug.pass_to_pass))
    timeout_s = GRADING_SLACK_S + GRADING_FACTOR * expected_s
    problem = await is_sound(backend, task_of(row, folder=out.parent), timeout_s=timeout_s)
    if problem is not None:
        logger.info("%s is left out: %s", row["instance_id"], problem)
        return None
    return row


def _chunks(order: Sequence[Candidate], baseline: Baseline, *, most: int) -> list[Sequence[Candidate]]:
    """Candidates in portions of some seconds, so that little is tried in vain once there are enough tasks."""
    typical_s = sum(baseline.expected_s(candidate.tests) for candidate in order[:50]) / max(1, len(order[:50]))
    size = max(1, min(MAX_CHUNK, most, round(CHUNK_S / max(typical_s, 1e-3))))
    return [order[start : start + size] for start in range(0, len(order), size)]


class _Probes:
    """Sandboxes to try bugs in, opened when first wanted."""

    def __init__(self, source: Source, backend: SandboxBackend, boxes: AsyncExitStack, first: Probe) -> None:
        self._source, self._backend, self._boxes = source, backend, boxes
        self._free = [first]

    async def take(self) -> Probe:
        if self._free:
            return self._free.pop()
        probe = await self._boxes.enter_async_context(open_probe(self._source, self._backend))
        await probe.warm(self._source)
        return probe

    def give(self, probe: Probe) -> None:
        self._free.append(probe)


async def _in_order(
    chunks: Sequence[Sequence[Candidate]],
    work: Callable[[Probe, Sequence[Candidate]], Any],
    probes: _Probes,
    workers: int,
) -> AsyncIterator[list[dict[str, Any] | None]]:
    """The outcomes of the chunks in their order, ``workers`` of them at work; what is left at the end is cancelled."""

    async def one(chunk: Sequence[Candidate]) -> list[dict[str, Any] | None]:
        probe = await probes.take()
        outcome = await work(probe, chunk)
        probes.give(probe)
        return outcome

    running: list[asyncio.Task[list[dict[str, Any] | None]]] = []
    waiting = iter(chunks)
    try:
        while True:
            while sum(not task.done() for task in running) < workers and (chunk := next(waiting, None)) is not None:
                running.append(asyncio.create_task(one(chunk)))
            if not running:
                return
            if running[0].done():
                yield running.pop(0).result()
            else:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _move_archives(rows: Sequence[Mapping[str, Any]], aside: Path, out: Path) -> None:
    """Put the rows' archives, and no others, where the rows say they are; those of an earlier run go."""
    shutil.rmtree(archives_of(out), ignore_errors=True)
    for row in rows:
        final = out.parent / row["archive"]
        final.parent.mkdir(exist_ok=True)
        (aside / row["archive"]).rename(final)
