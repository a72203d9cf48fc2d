"""What imitation learns from and measures by, and how it goes on beyond its end."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from ...agent.demonstrations import Demonstration
from ...agent.failures import Failures, lost_to
from ...agent.policy import Script
from ...agent.trajectory import Trajectory
from ...envs.sandbox.background import all_or_first_error
from ...envs.task import Task
from ...errors import AgentError, EnvironmentBug, SandboxError, TaskError
from ..recipe.recipe import Recipe
from ..recipe.stages import SFTStage
from ..sampling.families import Family
from .progress import Progress

logger = logging.getLogger(__name__)

DEMONSTRATION_ATTEMPTS = 3


async def play_experts(
    family: Family, recipe: Recipe, progress: Progress, check_interrupt: Callable[[], None]
) -> list[dict[str, Any]]:
    """The demonstrations of a family: {"name", "expert", "trajectory"} each, and "tools" in OpenAI's form where
    its agent offers others than its environment.

    Each (task, expert) acts once: scripts and environments are deterministic, so a second time says the same.

    Args:
        check_interrupt: raises where the run is to end.
    """
    config, rng = family.config, random.Random(f"{recipe.seed}/{family.config.name}/demonstrations")
    names = rng.choices(list(config.experts), list(config.experts.values()), k=config.num_demonstrations)
    drawn = [(family.train[number % len(family.train)], name) for number, name in enumerate(names)]
    distinct = {(task.id, name): (task, name) for task, name in drawn}
    slots = asyncio.Semaphore(4 * recipe.num_workers)
    failures = Failures(max((stage.train.max_failures for stage in recipe.sampled_stages), default=0.2))
    with progress.bar(f"demonstrations: {config.name}", total=len(distinct)) as bar:

        async def play(task: Task, name: str) -> list[dict[str, Any]]:
            async with slots:
                check_interrupt()
                episodes = await _demonstrate(family, name, task, failures)
            bar.advance()
            failures.ended(episodes[0].trajectory)
            return [_row(family, name, one) for one in episodes if not one.trajectory.failed_in]

        played = dict(zip(distinct, await all_or_first_error([play(*pair) for pair in distinct.values()])))
    whole = [row for task, name in drawn for row in played[task.id, name]]
    if not whole and drawn:
        raise EnvironmentBug(f"every demonstration of family {config.name!r} met a bug of its environment; mend that")
    return whole


def _row(family: Family, expert: str, played: Demonstration) -> dict[str, Any]:
    row = {"name": family.config.name, "expert": expert, "trajectory": played.trajectory.to_json()}
    return row if played.tools == family.tools else row | {"tools": [spec.to_openai() for spec in played.tools]}


async def _demonstrate(family: Family, name: str, task: Task, failures: Failures) -> tuple[Demonstration, ...]:
    """One demonstration; where sandbox, agent or environment fail it is tried again. One that an environment fails to
    the last is marked as failed."""
    budget = family.plan(1 << 20).budget
    for attempt in range(DEMONSTRATION_ATTEMPTS):
        try:
            script = _script(family, name, task)
            return await family.demonstrate(family.make_env(), script, task, budget=budget, seats=family.seats)
        except (SandboxError, AgentError) as error:
            if attempt + 1 == DEMONSTRATION_ATTEMPTS:
                raise
            logger.warning("the demonstration of %s is tried again: %s", task.id, error)
        except EnvironmentBug as bug:
            failures.met(bug)
            if attempt + 1 == DEMONSTRATION_ATTEMPTS:
                return (Demonstration(trajectory=lost_to(bug, task), tools=family.tools),)
    raise AssertionError("the last attempt returns or raises")


def _script(family: Family, name: str, task: Task) -> Script:
    try:
        return family.experts[name](task)
    except TaskError as error:
        raise TaskError(
            f"{error}. Without it the family {family.config.name!r} has no demonstrations: set its num_demonstrations "
            "to 0, or name other experts"
        ) from error


def further(settings: SFTStage) -> SFTStage:
    """The same training without an end, from where it had got to: at the rate that its schedule ends with."""
    optim = settings.optim
    if optim.schedule == "cosine":
        rate, muon = optim.min_lr_ratio, optim.muon_lr
        changes = {"lr": optim.lr * rate, "muon_lr": muon and muon * rate, "schedule": "constant", "total_steps": None}
        optim = optim.model_copy(update=changes)
    train = settings.train.model_copy(update={"patience": 0, "epochs": None, "max_steps": 10**9})
    return settings.model_copy(update={"train": train, "optim": optim})


def split_by_task(
    demonstrations: Sequence[Trajectory], share: float, seed: int
) -> tuple[list[Trajectory], list[Trajectory]]:
    """(to learn from, to measure by). No task is in both: an expert that acted once is known the next time.

    Raises:
        TaskError: there are demonstrations of one task alone.
    """
    tasks = sorted({(one.family, one.task_id) for one in demonstrations})
    if len(tasks) < 2:
        raise TaskError(
            f"imitation needs demonstrations of two tasks or more, some to measure by; here are {len(tasks)}. Give a "
            "family more tasks (num_train), or leave sft out"
        )
    random.Random(seed).shuffle(tasks)
    kept = set(tasks[: max(1, round(share * len(tasks)))])
    parts: tuple[list[Trajectory], list[Trajectory]] = ([], [])
    for one in demonstrations:
        parts[(one.family, one.task_id) in kept].append(one)
    return parts
