"""Grade predictions that are there already: no model, any number of rows a task, resumable."""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..agent.trajectory import Ending
from ..envs.runs.lock import RunLock
from ..envs.sandbox.background import all_or_first_error
from ..envs.sandbox.loop_watch import LoopWatch
from ..errors import GradingError, SandboxError, TaskError, VerigymError
from ..rewards.score import Score
from .predictions import Job
from .store import VerdictStore
from .suites.spec import Grader
from .verdict import Verdict, labels_of

logger = logging.getLogger(__name__)

Told = Callable[[Verdict], None]
"""Told of every verdict as it comes, those on record first."""
_Record = Callable[[Verdict], Awaitable[None]]


async def grade(
    jobs: Sequence[Job],
    grader: Grader,
    *,
    workers: int,
    out: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    retries: int = 1,
    told: Told | None = None,
    lock: RunLock | None = None,
) -> list[Verdict]:
    """A verdict for each job, in their order.

    Args:
        jobs: [N] with distinct keys.
        grader: of the suite; closed at the end.
        workers: most gradings at once.
        out: folder of verdicts.jsonl; one that exists is resumed.
        settings: what a resumed folder must have been made with.
        retries: further attempts where the infrastructure failed.
        told: told of every verdict.
        lock: of ``out``, where the caller holds it already.
    Raises:
        ConfigError: ``out`` belongs to another run.
    """
    order = [job.key for job in jobs]
    store = VerdictStore(out, settings or {}, lock=lock) if out is not None else None
    with store or nullcontext():
        verdicts = dict(store.verdicts) if store else {}
        if store:
            store.refuse_others(set(order))
        for verdict in verdicts.values():
            if told:
                told(verdict)
        left = iter([job for job in jobs if job.key not in verdicts])

        async def record(verdict: Verdict) -> None:
            verdicts[verdict.key] = verdict
            if store:
                await store.put(verdict)
            if told:
                told(verdict)

        try:
            with LoopWatch():
                await all_or_first_error([_work(left, grader, retries, record) for _ in range(min(workers, len(jobs)))])
        finally:
            await grader.aclose()
        if store:
            store.finish(order)
    return [verdicts[key] for key in order]


async def _work(jobs: Iterator[Job], grader: Grader, retries: int, record: _Record) -> None:
    for job in jobs:
        started = time.monotonic()
        verdict = await _grade_one(job, grader)
        for _ in range(retries):
            if not verdict.is_infrastructure_failure:
                break
            logger.info("%s, prediction %d: %s; tried again", job.task.id, job.index, verdict.detail)
            started = time.monotonic()
            verdict = await _grade_one(job, grader)
        await record(replace(verdict, seconds=round(time.monotonic() - started, 3)))


async def _grade_one(job: Job, grader: Grader) -> Verdict:
    try:
        score = await grader.grade(job.task, job.prediction)
    except TaskError as error:
        return _verdict(job, "ungradable", None, str(error))
    except SandboxError as error:
        return _verdict(job, "sandbox_failure", None, str(error))
    except GradingError as error:
        return _verdict(job, "grader_failure", None, str(error))
    except VerigymError:
        raise
    except Exception as error:
        logger.exception("%s, prediction %d: the grader failed", job.task.id, job.index)
        return _verdict(job, "grader_failure", None, " ".join(f"{type(error).__name__}: {error}".split())[:500])
    return _verdict(job, score.ending or "answered", score, score.detail)


def _verdict(job: Job, ending: Ending | str, score: Score | None, detail: str) -> Verdict:
    return Verdict(
        task_id=job.task.id,
        given_id=job.prediction.given_id,
        index=job.index,
        passed=None if score is None else score.passed,
        score=None if score is None else score.value,
        breakdown={} if score is None else dict(score.breakdown),
        ending=ending,
        detail=detail,
        family=job.task.family,
        labels=labels_of(job.task),
    )
