"""From a source to a file of tasks."""

import asyncio
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...rewards.score import Score
from ..datasets.swe import row_of, task_of
from ..runs.lock import RunLock
from ..sandbox.background import all_or_first_error
from ..sandbox.types import SandboxBackend
from ..swe.grading import grade_patch
from ..task import Task
from .baseline import Baseline, measure_baseline
from .examine import Seen, find_failing, find_passing
from .ledger import Ledger, key_of, settings_of
from .mutate import Candidate, candidates
from .operators import OPERATORS, Operator
from .probing import STAGE_S
from .rows import make_row
from .share import SUITE_S
from .sources import Source, Tell, silent
from .trying import Probes, Trial, Trials, chunks_of

logger = logging.getLogger(__name__)

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
            probes = Probes(self.source, self.backend, boxes)
            baseline = self.ledger.baseline
            if baseline is None:
                self.tell(f"making an environment of {len(self.source.requirements)} packages", 0, 0)
                bounds = {"suite_s": self.suite_s, "stage_s": self.stage_s}
                async with probes.one() as probe:
                    baseline = await measure_baseline(probe, self.source, seed=seed, tell=self.tell, **bounds)
                self.ledger.begin(baseline)
            probes.warmed = baseline.test_files
            self.tell("looking for places of bugs", 0, 0)
            order = await asyncio.to_thread(candidates, self.source, baseline, seed=seed, operators=operators)
            left = [candidate for candidate in order if key_of(candidate) not in self.ledger.tried]

            async def find(chunk: Sequence[Candidate]) -> list[Seen | str]:
                async with probes.one() as probe:
                    return await find_failing(probe, self.source, baseline, chunk)

            async def finish(seen: Seen, slots: asyncio.Semaphore) -> dict[str, Any] | str:
                return await self._finish(baseline, seen, probes, slots)

            self._say(len(order), limit)
            self.made_at = time.monotonic()
            chunks = chunks_of(left, baseline, most=-(-limit // self.workers))
            trials = Trials(chunks, find, finish, workers=self.workers)
            outcomes = trials.outcomes(lambda: limit - len(self.ledger.rows), lambda: self.made_at + self.stage_s)
            async with aclosing(outcomes):  # what is still at work has ended before the sandboxes close
                async for trial in outcomes:
                    self._keep(trial)
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

    async def _finish(
        self, baseline: Baseline, seen: Seen, probes: Probes, slots: asyncio.Semaphore
    ) -> dict[str, Any] | str:
        """The row of a bug, confirmed where that is wanted; what was wrong where it is not to be used."""
        async with slots:
            async with probes.one() as probe:
                bug = await find_passing(probe, baseline, seen)
            if isinstance(bug, str):
                return bug
            # Only what git does is on a thread: two that parse at once can fail with a SystemError
            # (python/cpython#106905).
            row = await make_row(self.source, baseline, bug, out=self.aside)
        if not self.confirm:
            return row
        expected_s = baseline.expected_s((*seen.fail_to_pass, *bug.pass_to_pass))
        timeout_s = GRADING_SLACK_S + GRADING_FACTOR * expected_s
        task = task_of(row, folder=self.aside.parent)
        problem = await is_sound(self.backend, task, timeout_s=timeout_s, slots=slots)
        if problem is None:
            return row
        logger.info("%s is left out: %s", row["instance_id"], problem)
        return problem.partition(":")[0]

    def _keep(self, trial: Trial) -> None:
        """Note what came of a bug; the archive of its row first."""
        row, reason = (None, trial.made) if isinstance(trial.made, str) else (trial.made, "")
        if row is not None:
            self.made_at = time.monotonic()
            _move_archive(row, self.aside.parent, self.ledger.out)
        self.ledger.add(key_of(trial.candidate), row, reason)

    def _say(self, num_bugs: int, limit: int) -> None:
        self.tell(f"bugs tried: {len(self.ledger.tried)} of {num_bugs}; tasks", len(self.ledger.rows), limit)


async def is_sound(
    backend: SandboxBackend, task: Task, *, timeout_s: float, slots: asyncio.Semaphore | None = None
) -> str | None:
    """Grade the gold patch, which must get 1, and the empty one, which must get 0, side by side.

    Args:
        slots: each grading takes it.
    Returns:
        None, or what was wrong.
    Raises:
        SandboxError, GradingError: no verdict could be had.
    """

    async def grade(patch: str) -> Score:
        async with slots or nullcontext():
            score, _ = await grade_patch(backend, task, patch, timeout_s=timeout_s)
        return score

    gold, empty = await all_or_first_error([grade(row_of(task).patch), grade("")])
    if not gold.passed:
        return f"the gold patch got {gold.value:g}: {gold.detail}"
    return f"the empty patch got {empty.value:g}" if empty.value > 0 else None


def _move_archive(row: Mapping[str, Any], aside: Path, out: Path) -> None:
    """Put a row's archive where the row says it is."""
    final = out.parent / row["archive"]
    final.parent.mkdir(parents=True, exist_ok=True)
    (aside / row["archive"]).replace(final)
