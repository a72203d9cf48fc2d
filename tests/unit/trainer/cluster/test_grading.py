"""Gradings by workers: the verdicts of one process, also where workers are lost."""

import asyncio
import random

import pytest

from verigym.envs.task import Task
from verigym.errors import SandboxError, TaskError
from verigym.evals.suites.registry import suite_named
from verigym.evals.suites.spec import GradeOptions, Prediction
from verigym.trainer.cluster.grading import ClusterGrader, GradingWorker
from verigym.trainer.cluster.workers import WorkerLost, Workers


class Line:
    """The controller's end of the line to a worker of this process, which now and then is cut."""

    def __init__(self, rng, faults):
        self.rng, self.faults, self.worker = rng, faults, GradingWorker("math500", GradeOptions())

    async def ready(self):
        pass

    async def engines(self, addresses):
        await self.worker.engines(addresses)

    async def run(self, request):
        if self.rng.random() < self.faults:
            raise WorkerLost("its line is cut")
        answer = await self.worker.run(request)
        if self.rng.random() < self.faults:
            raise WorkerLost("its line is cut")
        return answer

    def cancel(self, assignment):
        pass

    def end(self):
        pass


def grader_of(faults):
    rng = random.Random(3)
    return ClusterGrader(Workers(lambda place, incarnation: Line(rng, faults), 3, most_inside=2, look_seconds=0.01))


ROWS = [
    (Task(id=str(n), family="math", prompt="", hidden={"answer": "4"}), text)
    for n, text in enumerate(["\\boxed{4}", "\\boxed{5}", "The answer is 4.", ""] * 4)
]


async def scores(grader):
    try:
        predictions = [Prediction(where="here", task_id=task.id, given_id=task.id, text=text) for task, text in ROWS]
        asked = [grader.grade(task, one) for (task, _), one in zip(ROWS, predictions, strict=True)]
        return [score.passed for score in await asyncio.gather(*asked)]
    finally:
        await grader.aclose()


@pytest.mark.parametrize("faults", [0.0, 0.15])
def test_workers_say_what_one_grader_says(faults):
    make = suite_named("math500").make_grader
    assert make is not None
    expected = asyncio.run(scores(make(GradeOptions())))
    assert set(expected) == {True, False}
    assert asyncio.run(scores(grader_of(faults))) == expected


def test_what_cannot_be_graded_and_whose_worker_is_always_lost():
    prediction = Prediction(where="here", task_id="x", given_id="x", text="4")

    async def grade(faults, hidden):
        grader = grader_of(faults)
        try:
            task = Task(id="x", family="math", prompt="", hidden=hidden, metadata={"no_answer": "has none"})
            await grader.grade(task, prediction)
        finally:
            await grader.aclose()

    with pytest.raises(TaskError, match="task 'x' has none"):
        asyncio.run(grade(0.0, {}))
    with pytest.raises(SandboxError, match="the grading worker was lost 5 times"):
        asyncio.run(grade(1.0, {"answer": "4"}))
