"""Whether problems of mathematics and programming hold: the gold answer is graded 1 and the empty one 0, every time."""

import asyncio
from collections.abc import Sequence

from ...errors import ConfigError, GradingError, TaskError
from ..core import ToolEnv
from ..registry.ids import FAMILY_ENVS
from ..registry.opening import open_env
from ..sandbox.background import all_or_first_error, call
from ..sandbox.types import SandboxBackend
from ..scripts import script_of
from ..task import Task
from .validate import Check, Progress, problem_of_scores


async def validate_problems(
    tasks: Sequence[Task], *, backend: SandboxBackend, times: int, workers: int, progress: Progress | None = None
) -> list[Check]:
    """Grade the gold and the empty answer of every task, as its family's environment grades a final message.

    Args:
        times: how often each is graded.
        workers: tasks graded at once.
    Returns:
        One check a task, in their order; a task without a gold answer does not hold.
    Raises:
        ConfigError: no environment is known for a family. SandboxError: a sandbox failed.
    """
    tell = progress or (lambda what, done, total: None)
    envs: dict[str, ToolEnv] = {}
    for family in {task.family for task in tasks}:
        if family not in FAMILY_ENVS:
            raise ConfigError(f"no environment grades the family {family!r}; known: {', '.join(FAMILY_ENVS)}")
        envs[family] = open_env(FAMILY_ENVS[family], {"sandbox": backend})
    free = asyncio.Semaphore(workers)
    done = 0

    async def one(task: Task) -> Check:
        nonlocal done
        async with free:
            check = await _check(envs[task.family], task, times)
        done += 1
        tell("tasks validated", done, len(tasks))
        return check

    return await all_or_first_error([one(task) for task in tasks])


async def _check(env: ToolEnv, task: Task, times: int) -> Check:
    golds, empties, why = [], [], ""
    try:
        gold, empty = (script_of(env, hook, task)[-1].content for hook in ("gold", "empty"))
        await call(env.check, task)
    except TaskError as error:
        return Check(task_id=task.id, row=task.to_json(), golds="-", empties="-", problem=str(error))
    for _ in range(times):
        for answer, scores in ((gold, golds), (empty, empties)):
            try:
                score = await call(env.score, task, answer)
            except (GradingError, TaskError) as error:
                why, score = str(error), None
            scores.append("-" if score is None else f"{score.value:g}")
            if scores is golds and score is not None and not score.passed:
                why = score.detail
    return Check(
        task_id=task.id,
        row=task.to_json(),
        golds=" ".join(golds),
        empties=" ".join(empties),
        problem=problem_of_scores(golds, empties, why),
    )
