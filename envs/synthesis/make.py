"""From a source to a file of tasks."""

import asyncio
import logging
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..datasets.swe import row_of, task_of
from ..runs.lock import RunLock
from ..sandbox.background import all_or_first_error
from ..sandbox.types import SandboxBackend
from ..swe.grading import grade_patch
from ..task import Task
from .baseline import Baseline, measure_baseline
from .ledger import Ledger, key_of, settings_of
from .mutate import Bug, Candidate, candidates, examine
from .operators import OPERATORS, Operator
from .probing import STAGE_S, Probe, open_probe
from .rows import make_row
from .share import SUITE_S
from .sources import Source, Tell, silent

logger = logging.getLogger(__name__)

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
    progress: Tell = silent,
    confirm: bool = True,
    operators: Mapping[str, Operator] = OPERATORS,
    suite_s: float = SUITE_S,
    stage_s: float = STAGE_S,
) -> list[dict[str, Any]]:
    """Put bugs into a source and write those worth finding as SWE-bench rows, each as soon as it is made.

    The same source, seed and limit give the same rows, whatever the number of workers and however often the run was
    interrupted and begun again, as far as the source's own tests are deterministic and are done within
    ``suite_s``. Of a longer suite the clock says how large a share is taken, in doublings.

    Args:
        out: the rows file; its repositories' archives go into a folder beside it, and what was tried into
            ``OUT.done`` (``ledger.py``).
        limit: most tasks to write.
        workers: sandboxes at work at once.
        progress: is told what is being done and how far it is.
        confirm: keep a task only if the gold patch is graded 1 and the empty one 0.
        operators: kinds of bugs, by name.
        suite_s: most seconds that the source's tests take to be used whole; of a longer suite a share of about so many
            stands for it, as the row says. 0: whole, within ``stage_s``.
        stage_s: most seconds that the clean tree's tests run, and that may go by without a further task.
    Returns:
        The rows written; fewer than ``limit`` where the source has no more such bugs, or none came in time.
    Raises:
        TaskError: the source's tests cannot be run, or hardly any is without trouble.
        SandboxError: a sandbox failed.
        ConfigError: another process writes to ``out``, or it was made with other settings.
    """
    aside = out.parent / f".{out.name}.making"
    with RunLock(out, is_file=True):
        ledger = Ledger(out, settings_of(source, seed=seed, suite_s=suite_s, operators=operators, confirm=confirm))
        if ledger.baseline is not None:
            ledger.write_rows(limit)
        # Archives are made aside: those of candidates that are not taken go away with the folder.
        shutil.rmtree(aside, ignore_errors=True)
        try:
            if len(ledger.rows) < limit:
                making = _Making(
                    source, ledger, aside / out.name, backend, workers, progress, confirm, suite_s, stage_s
                )
                await making.run(limit, seed, operators)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return ledger.write_rows(limit)


@dataclass(slots=True)
class _Making:
    """One call of ``synthesize_tree``."""

    source: Source
    ledger: Ledger
    aside: Path
    backend: SandboxBackend
    workers: int
    tell: Tell
    confirm: bool
    suite_s: float
    stage_s: float
    made_at: float = 0.0

    async def run(self, limit: int, seed: int, operators: Mapping[str, Operator]) -> None:
        """Try bugs that were not tried until there are ``limit`` rows, or none came for ``stage_s``."""
        async with AsyncExitStack() as boxes:
            probes = _Probes(self.source, self.backend, boxes)
            baseline = self.ledger.baseline
            if baseline is None:
                self.tell(f"making an environment of {len(self.source.requirements)} packages", 0, 0)
                probe = await probes.take()
                bounds = {"suite_s": self.suite_s, "stage_s": self.stage_s}
                baseline = await measure_baseline(probe, self.source, seed=seed, tell=self.tell, **bounds)
                probes.give(probe)
                self.ledger.begin(baseline)
            probes.warmed = baseline.test_files
            self.tell("looking for places of bugs", 0, 0)
            order = await asyncio.to_thread(candidates, self.source, baseline, seed=seed, operators=operators)
            left = [candidate for candidate in order if key_of(candidate) not in self.ledger.tried]
            chunks = _chunks(left, baseline, most=-(-limit // self.workers))

            async def work(probe: Probe, chunk: Sequence[Candidate]) -> list[dict[str, Any] | None]:
                bugs = await examine(probe, self.source, baseline, chunk)
                confirming = self.backend if self.confirm else None
                return await all_or_first_error(
                    [_finish(self.source, baseline, bug, self.aside, confirming) for bug in bugs]
                )

            self._say(len(order), limit)
            self.made_at = time.monotonic()
            outcomes = _in_order(chunks, work, probes, self.workers, lambda: self.made_at + self.stage_s)
            async with aclosing(outcomes):  # what is still at work has ended before the sandboxes close
                async for chunk, made in outcomes:
                    for candidate, row in zip(chunk, made, strict=True):
                        if len(self.ledger.rows) < limit:
                            self._keep(candidate, row)
                            self._say(len(order), limit)
                    if len(self.ledger.rows) >= limit:
                        return
            if len(self.ledger.tried) < len(order):
                logger.warning(
                    "%s: no further task came in %g s; %d of %d bugs were tried (run again to go on, or with a longer "
                    "--stage-timeout)",
                    self.source.name,
                    self.stage_s,
                    len(self.ledger.tried),
                    len(order),
                )

    def _keep(self, candidate: Candidate, row: dict[str, Any] | None) -> None:
        """Note what came of a bug; the archive of its row first."""
        if row is not None:
            self.made_at = time.monotonic()
            _move_archive(row, self.aside.parent, self.ledger.out)
        self.ledger.add(key_of(candidate), row)

    def _say(self, num_bugs: int, limit: int) -> None:
        self.tell(f"bugs tried: {len(self.ledger.tried)} of {num_bugs}; tasks", len(self.ledger.rows), limit)


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
    """Sandboxes to try bugs in, opened when first wanted; ``warmed`` are files of tests that each imports first."""

    def __init__(self, source: Source, backend: SandboxBackend, boxes: AsyncExitStack) -> None:
        self._source, self._backend, self._boxes = source, backend, boxes
        self._free: list[Probe] = []
        self.warmed: tuple[str, ...] = ()

    async def take(self) -> Probe:
        if self._free:
            return self._free.pop()
        probe = await self._boxes.enter_async_context(open_probe(self._source, self._backend))
        if self.warmed:
            await probe.warm(self.warmed)
        return probe

    def give(self, probe: Probe) -> None:
        self._free.append(probe)


async def _in_order(
    chunks: Sequence[Sequence[Candidate]],
    work: Callable[[Probe, Sequence[Candidate]], Any],
    probes: _Probes,
    workers: int,
    until: Callable[[], float],
) -> AsyncGenerator[tuple[Sequence[Candidate], list[dict[str, Any] | None]], None]:
    """The chunks with their outcomes, in their order, ``workers`` of them at work. What is left at the end is
    cancelled; ``until`` says by the monotonic clock when that is, for now."""

    async def one(chunk: Sequence[Candidate]) -> list[dict[str, Any] | None]:
        probe = await probes.take()
        outcome = await work(probe, chunk)
        probes.give(probe)
        return outcome

    running: list[tuple[Sequence[Candidate], asyncio.Task[list[dict[str, Any] | None]]]] = []
    waiting = iter(chunks)
    try:
        while True:
            while sum(not task.done() for _, task in running) < workers and (chunk := next(waiting, None)) is not None:
                running.append((chunk, asyncio.create_task(one(chunk))))
            if not running:
                return
            chunk, first = running[0]
            if first.done():
                running.pop(0)
                yield chunk, first.result()
                continue
            left_s = until() - time.monotonic()
            if left_s <= 0:
                return
            await asyncio.wait([task for _, task in running], timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for _, task in running:
            task.cancel()
        await asyncio.gather(*(task for _, task in running), return_exceptions=True)


def _move_archive(row: Mapping[str, Any], aside: Path, out: Path) -> None:
    """Put a row's archive where the row says it is."""
    final = out.parent / row["archive"]
    final.parent.mkdir(parents=True, exist_ok=True)
    (aside / row["archive"]).replace(final)
