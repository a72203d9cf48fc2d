"""What imitation learns from and measures by, and how it goes on beyond its end."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import Any

from ...agent.demonstrations import demonstrate
from ...agent.failures import Failures, lost_to
from ...agent.trajectory import Trajectory
from ...envs.sandbox.background import all_or_first_error
from ...envs.task import Task
from ...errors import EnvironmentBug, SandboxError, TaskError
from ..recipe.recipe import Recipe
from ..recipe.stages import SFTStage
from ..sampling.families import Family
from .progress import Progress

logger = logging.getLogger(__name__)

DEMONSTRATION_ATTEMPTS = 3


async def play_experts(
    family: Family, recipe: Recipe, progress: Progress, check_interrupt: Callable[[], None]
) -> list[dict[str, Any]]:
    """The demonstrations of a family: {"name", "expert", "trajectory"} each.

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

        async def play(task: Task, name: str) -> dict[str, Any]:
            async with slots:
                check_interrupt()
                episode = await _demonstrate(family, name, task, failures)
            bar.advance()
            failures.ended(episode)
            return {"name": config.name, "expert": name, "trajectory": episode.to_json()}

        played = dict(zip(distinct, await all_or_first_error([play(*pair) for pair in distinct.values()])))
    whole = [played[task.id, name] for task, name in drawn if not played[task.id, name]["trajectory"]["failed_in"]]
    if not whole and drawn:
        raise EnvironmentBug(f"every demonstration of family {config.name!r} met a bug of its environment; mend that")
    return whole


async def _demonstrate(family: Family, name: str, task: Task, failures: Failures) -> Trajectory:
    """One demonstration; where the sandbox or the environment fails it is tried again. One that an environment fails to
    the last is marked as failed."""
    for attempt in range(DEMONSTRATION_ATTEMPTS):
        try:
            script = family.experts[name](task)
            turns = family.config.turns
            return await demonstrate(family.make_env(), script, task, max_turns=turns, seats=family.seats)
        except SandboxError as error:
            if attempt + 1 == DEMONSTRATION_ATTEMPTS:
                raise
            logger.warning("the demonstration of %s is tried again: %s", task.id, error)
        except EnvironmentBug as bug:
            failures.met(bug)
            if attempt + 1 == DEMONSTRATION_ATTEMPTS:
                return lost_to(bug, task)
    raise AssertionError("the last attempt returns or raises")


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
