"""Advantages of whole episodes and of their tokens. Pure: rewards in, numbers out."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...agent.trajectory import Trajectory
from ...errors import TrainingError

Scale = Literal["none", "std", "mean"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupAdvantages:
    """Advantages, and what became of each group.

    Attributes:
        values: one for each trajectory, in their order; None: it is left out of training.
        num_groups: groups seen.
        num_failed: episodes that the infrastructure failed; they are in no baseline.
        num_lone: groups left out because fewer than two episodes remained.
        num_uniform: groups whose rewards are all the same, left out or not.
        turns: with credit by turn, of each trajectory a number for each turn; () otherwise.
    """

    values: tuple[float | None, ...]
    num_groups: int
    num_failed: int
    num_lone: int
    num_uniform: int
    turns: tuple[tuple[float, ...] | None, ...] = ()


def finite_rewards(trajectories: Sequence[Trajectory]) -> list[float | None]:
    """The reward of each episode; None where the infrastructure failed.

    Raises:
        TrainingError: a reward is not finite.
    """
    for trajectory in trajectories:
        if trajectory.reward is not None and not math.isfinite(trajectory.reward):
            raise TrainingError(
                f"an episode of task {trajectory.task_id!r} has reward {trajectory.reward}; rewards must be finite. "
                f"Mend score() of the environment of family {trajectory.family!r}"
            )
    return [trajectory.reward for trajectory in trajectories]


def shape_overlong(
    trajectories: Sequence[Trajectory],
    rewards: Sequence[float | None],
    *,
    length: int,
    buffer: int,
    penalty: float,
) -> list[float | None]:
    """Lower the rewards of long episodes: by nothing up to ``length - buffer`` sampled tokens, by ``penalty`` from
    ``length`` on, linearly between. Source: DAPO's soft overlong punishment, arXiv:2503.14476."""
    shaped: list[float | None] = []
    for trajectory, reward in zip(trajectories, rewards, strict=True):
        over = trajectory.num_sampled - (length - buffer)
        share = min(1.0, max(0.0, over / buffer)) if buffer else float(trajectory.num_sampled >= length)
        shaped.append(None if reward is None else reward - penalty * share)
    return shaped


def group_advantages(
    trajectories: Sequence[Trajectory],
    rewards: Sequence[float | None] | None = None,
    *,
    scale: Scale = "none",
    leave_one_out: bool = False,
    drop_uniform: bool = False,
) -> GroupAdvantages:
    """Center rewards within each group id.

    Groups may be of any size and in any order. The result of one group depends on its own rewards alone, to the
    bit, and not on their order.

    Args:
        trajectories: episodes; those with reward None (the infrastructure failed) have no advantage and are not
            counted in their group's mean.
        rewards: in place of the episodes' own, where they were shaped.
        scale: "std" divides by the group's population standard deviation, "mean" by its mean reward; "none" does not.
        leave_one_out: the baseline of each episode is the mean of the others in its group.
        drop_uniform: leave out groups whose rewards are all the same, else their advantages are exact zeros.
    Raises:
        TrainingError: a reward is not finite, or negative where they are divided by their mean.
    Source: GRPO, arXiv:2402.03300; "none" as in Dr. GRPO, arXiv:2503.20783; leave one out, arXiv:2402.14740.
    """
    given = finite_rewards(trajectories)
    rewards = given if rewards is None else rewards
    members: dict[str, list[int]] = defaultdict(list)
    num_failed = 0
    for index, (trajectory, reward) in enumerate(zip(trajectories, rewards, strict=True)):
        group = members[trajectory.group_id]
        if reward is None:
            num_failed += 1
        else:
            group.append(index)
    values: list[float | None] = [None] * len(trajectories)
    num_lone = num_uniform = 0
    for group in members.values():
        if len(group) < 2:
            num_lone += 1
            continue
        own = [float(rewards[index] or 0.0) for index in group]
        uniform = min(own) == max(own)
        num_uniform += uniform
        if uniform and drop_uniform:
            continue
        # r - mean of the others = n / (n - 1) x (r - mean of all)
        factor = len(group) / (len(group) - 1) if leave_one_out else 1.0
        for index, value in zip(group, _center(own, scale), strict=True):
            values[index] = factor * value
    return GroupAdvantages(
        values=tuple(values),
        num_groups=len(members),
        num_failed=num_failed,
        num_lone=num_lone,
        num_uniform=num_uniform,
    )


def plain_advantages(trajectories: Sequence[Trajectory], rewards: Sequence[float | None]) -> GroupAdvantages:
    """The rewards themselves, for what has its baseline elsewhere: in a critic, or in the mean of the step."""
    groups: dict[str, list[float]] = defaultdict(list)
    for trajectory, reward in zip(trajectories, rewards, strict=True):
        if reward is not None:
            groups[trajectory.group_id].append(reward)
    return GroupAdvantages(
        values=tuple(rewards),
        num_groups=len({trajectory.group_id for trajectory in trajectories}),
        num_failed=sum(reward is None for reward in rewards),
        num_lone=0,
        num_uniform=sum(len(own) > 1 and min(own) == max(own) for own in groups.values()),
    )


def _center(rewards: Sequence[float], scale: Scale) -> list[float]:
    # The mean of equal floats need not equal them, and fsum makes the sum independent of the order.
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)
    mean = math.fsum(rewards) / len(rewards)
    centered = [reward - mean for reward in rewards]
    if scale == "none":
        return centered
    if scale == "mean":
        if min(rewards) < 0:
            raise TrainingError(
                f"a group has the reward {min(rewards)}, and max_rl divides by the mean reward, which is then no rate "
                "of success; shift the rewards, or take algorithm = 'grpo'"
            )
        return [value / mean for value in centered]
    # In units of the largest: the square of a tiny difference would vanish.
    largest = max(map(abs, centered))
    scaled = [value / largest for value in centered]
    deviation = math.sqrt(math.fsum(value * value for value in scaled) / len(rewards))
    return [value / deviation for value in scaled]


def generalized_advantages(
    rewards: np.ndarray, values: np.ndarray, *, gamma: float, gae_lambda: float
) -> tuple[np.ndarray, np.ndarray]:
    """Advantages and returns of one episode's sampled tokens, over all its turns and segments.

    Observations are not among them: the token before an observation is followed by the one after it. An episode's end
    is worth nothing more, also where a budget ended it: budgets are rules of the task, which the agent is told.

    Args:
        rewards: [T] float64 at each sampled token; the episode's reward is at the last.
        values: [T] float64, what the critic expected before each token was drawn.
        gamma, gae_lambda: discount, and decay of the sum over later errors, per token.
    Returns:
        (advantages [T], returns [T] = advantages + values).
    Source: arXiv:1506.02438.
    """
    advantages = np.zeros_like(rewards)
    following, ahead = 0.0, 0.0
    for t in range(len(rewards) - 1, -1, -1):
        error = rewards[t] + gamma * following - values[t]
        ahead = error + gamma * gae_lambda * ahead
        advantages[t], following = ahead, values[t]
    return advantages, advantages + values


def whiten(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Center and scale numbers to mean 0 and deviation 1 over all parts together; equal ones become 0."""
    joined = np.concatenate(parts)
    deviation = joined.std()
    if len(joined) < 2 or deviation < 1e-8:
        return [np.zeros_like(part) for part in parts]
    mean = joined.mean()
    return [(part - mean) / deviation for part in parts]


def discounted(values: np.ndarray, discount: float) -> np.ndarray:
    """[T] each value and those after it, each times ``discount`` to the power of its distance."""
    if not discount:
        return values.copy()
    sums = np.zeros_like(values)
    ahead = 0.0
    for t in range(len(values) - 1, -1, -1):
        ahead = values[t] + discount * ahead
        sums[t] = ahead
    return sums
