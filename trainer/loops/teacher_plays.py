"""How often a teacher passes that acts itself, its block before its eyes, beside its students on the same tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from types import MappingProxyType
from typing import Any

from ...agent.policy import Conversation, Policy, Turn
from ...agent.seeds import SeededPolicy
from ...agent.speakers import Seat
from ...agent.trajectory import Trajectory
from ...envs.core import ToolEnv
from ...envs.sandbox.background import on_thread
from ...envs.task import Task
from ...model.chat.messages import Message, ToolSpec
from ...model.chat.sampling import Sampling
from ..learning.distilling import taught_by
from ..learning.hindsight import Hindsight
from ..recipe.algorithms import OPDConfig, RLConfig
from ..sampling.rollouts import Collector, EpisodePlan, PlanOf

MOST_TASKS = 8
"""Of a step that are played again."""
PLAYS = 2
"""Of each of them."""


async def teacher_plays(
    step: int,
    hindsight: Hindsight,
    trajectories: Sequence[Trajectory],
    configs: Sequence[RLConfig],
    tasks: Sequence[Task],
    plan_of: PlanOf,
    policy: Policy,
    *,
    config: RLConfig,
    sampling: Sampling,
) -> dict[str, float]:
    """Play some tasks of a step again, each shown the block of its first episode that has one. The plays are graded and
    forgotten: no loss, no baseline, no file and no count of samples has them.

    A student's rate is that of the episodes that have a block too, whatever ``hindsight.of`` teaches: whether one has a
    block depends on how others of its group ended, not on how itself did, so that neither rate is of chosen successes.

    Args:
        step: steps done.
        configs: the settings of each trajectory.
        config: of the step, for how episodes are run.
    Returns:
        pass rates, mean rewards and sampled tokens; {} where no task is due.
    """
    if hindsight.decode is None or not any(_is_due(one, step, hindsight) for one in configs):
        return {}
    students: dict[tuple[str, str], list[Trajectory]] = {}
    blocks: dict[tuple[str, str], str] = {}
    hints = await on_thread(hindsight, trajectories, [_of_all(one) for one in configs])
    for one, own, shown in zip(trajectories, configs, hints.of_episodes, strict=True):
        hint = next((found for found in shown if found is not None), None)
        if hint is not None and one.reward is not None and not one.speaker and _is_due(own, step, hindsight):
            key = one.family, one.task_id
            students.setdefault(key, []).append(one)
            blocks.setdefault(key, hindsight.decode(hint.token_ids.tolist()))
    chosen = {
        (task.family, task.id): task
        for task in tasks
        if (task.family, task.id) in blocks and not plan_of(task).compares  # with others of the group than these
    }
    played = await Collector(
        lambda task: _shown(plan_of(task), blocks[task.family, task.id]),
        policy,
        group_size=PLAYS,
        concurrency=config.concurrency,
        retries=config.retries,
        deadline=config.group_seconds,
    ).collect(list(chosen.values())[:MOST_TASKS], sampling)
    teachers: dict[tuple[str, str], list[Trajectory]] = {}
    for one in played.trajectories:
        if one.reward is not None and not one.speaker:
            teachers.setdefault((one.family, one.task_id), []).append(one)
    metrics = {"trainer/teacher_plays_tokens/count": float(sum(one.num_sampled for one in played.trajectories))}
    if teachers:
        found, own = list(teachers.values()), [students[key] for key in teachers]
        metrics |= {
            "trainer/teacher_passed/rate": _mean_passed(found),
            "trainer/student_passed/rate": _mean_passed(own),
            "trainer/teacher_reward/mean": _mean_reward(found),
            "trainer/student_reward/mean": _mean_reward(own),
        }
    return metrics


class Shown:
    """A policy that reads a block of text at the end of the first user message."""

    def __init__(self, policy: Policy, block: str) -> None:
        self._policy, self._block = policy, block

    async def respond(self, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling) -> Turn:
        users = (at for at, one in enumerate(conversation) if isinstance(one, Message) and one.role == "user")
        place = next(users, 0)
        first = conversation[place]
        assert isinstance(first, Message)
        told = [*conversation[:place], replace(first, content=first.content + self._block), *conversation[place + 1 :]]
        return await self._policy.respond(told, tools, sampling)


def _shown(plan: EpisodePlan, block: str) -> EpisodePlan:
    """A plan whose policy reads the block; in other seats the same policy does not."""

    async def act(
        env: ToolEnv, policy: Policy, task: Task, *, seats: Mapping[str, Seat] = MappingProxyType({}), **more: Any
    ) -> Trajectory:
        others = {name: replace(seat, policy=seat.policy or policy) for name, seat in seats.items()}
        assert isinstance(policy, SeededPolicy)
        told = SeededPolicy(Shown(policy.inner, block), *policy.place)
        return await plan.act(env, told, task, seats=others, **more)

    return replace(plan, act=act, group_size=PLAYS)


def _is_due(config: RLConfig, step: int, hindsight: Hindsight) -> bool:
    """Whether the policy itself teaches episodes of these settings, and is to be played now."""
    if not isinstance(config, OPDConfig) or config.hindsight is None or taught_by(config) not in hindsight.own:
        return False
    every = config.hindsight.sample_every
    return every > 0 and step % every == 0


def _of_all(config: RLConfig) -> RLConfig:
    """The settings with blocks for all episodes, those that are not taught too."""
    if not isinstance(config, OPDConfig) or config.hindsight is None:
        return config
    return config.model_copy(update={"hindsight": config.hindsight.model_copy(update={"of": "all"})})


def _mean_passed(groups: Sequence[Sequence[Trajectory]]) -> float:
    """Each task counts the same."""
    return fmean(fmean(float(bool(one.passed)) for one in group) for group in groups)


def _mean_reward(groups: Sequence[Sequence[Trajectory]]) -> float:
    return fmean(fmean(one.reward or 0.0 for one in group) for group in groups)
