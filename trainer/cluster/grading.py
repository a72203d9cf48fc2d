"""``verigym grade --ray``: patches, programs and answers graded by workers on all machines of a cluster."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ...envs.task import Task
from ...errors import SandboxError
from ...evals.suites.registry import suite_named
from ...evals.suites.spec import GradeOptions, Prediction
from ...rewards.score import Score
from .commands import all_free_room
from .ledger import Answer, Assignment
from .workers import Workers

_AT_ONCE = 2
"""Gradings of one worker at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradingRequest:
    """One asking of one grading; see ``workers.Asking``. Its tests have time limits of their own."""

    assignment: Assignment
    task: Task
    prediction: Prediction
    seconds: float = 0.0


class GradingWorker:
    """A process that grades predictions of one suite."""

    def __init__(self, suite: str, options: GradeOptions) -> None:
        make = suite_named(suite).make_grader
        assert make is not None, "the command has looked"
        self._grader = make(options)
        self._running: dict[Assignment, asyncio.Task[Score]] = {}

    async def ready(self) -> tuple[str, int]:
        """See ``worker_actor.whereabouts``."""
        from .worker_actor import whereabouts

        return whereabouts()

    async def engines(self, addresses: object) -> None:
        """No model is asked; the answer says that it lives."""

    async def run(self, request: GradingRequest) -> Answer:
        """Grade one. Raises TaskError, SandboxError, GradingError."""
        running = asyncio.ensure_future(self._grader.grade(request.task, request.prediction))
        self._running[request.assignment] = running
        try:
            return Answer(assignment=request.assignment, result=await running)
        finally:
            del self._running[request.assignment]

    async def cancel(self, assignment: Assignment) -> None:
        """Nobody wants it any more."""
        running = self._running.get(assignment)
        if running is not None:
            running.cancel()


class ClusterGrader:
    """``suites.spec.Grader`` by workers. A grading whose worker is lost is asked of another one."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._opening = asyncio.Lock()

    async def grade(self, task: Task, prediction: Prediction) -> Score:
        """See ``Grader``; SandboxError, too, where the worker was lost time after time."""
        async with self._opening:
            if not self._workers.is_open:
                await self._workers.open([])
        found = await self._workers.run(
            lambda assignment: GradingRequest(assignment=assignment, task=task, prediction=prediction)
        )
        if found is None:
            raise SandboxError(f"the grading worker was lost {self._workers.most_asked} times; see Ray's logs")
        return found.result

    async def aclose(self) -> None:
        """End the workers."""
        await self._workers.aclose()


@contextmanager
def grading_on_cluster(address: str, suite: str, options: GradeOptions) -> Iterator[tuple[ClusterGrader, int]]:
    """(a grader, how many gradings it does at once) in all free room of a cluster.

    Args:
        options: of the grader; the folder that it writes into must be seen by all machines.
    Raises:
        ConfigError: Ray is not installed, no cluster answers, or it cannot be used.
    """
    with all_free_room(address, options.out) as room:
        from .placing import placed
        from .worker_actor import PlacedWorker, resources_of

        config = room.config
        options = replace(options, workers=_AT_ONCE, out=None if options.out is None else options.out.absolute())

        def start(place: int, incarnation: int) -> PlacedWorker:
            actor = placed(GradingWorker, room.workers, place, max_concurrency=64, **resources_of(config))
            seconds = config.answer_seconds
            return PlacedWorker(actor.remote(suite, options), start_seconds=seconds, episode_seconds=2 * seconds)

        yield ClusterGrader(Workers(start, config.workers, most_inside=_AT_ONCE)), _AT_ONCE * config.workers
