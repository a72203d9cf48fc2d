"""Credit by turn: what a turn and those after it earned, against the same turn of the group's other episodes.

Pure: rewards in, numbers out.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Literal

import numpy as np

from ...agent.trajectory import Trajectory
from ...errors import TrainingError
from .advantages import GroupAdvantages, group_advantages, plain_advantages


def rewards_of_turns(trajectory: Trajectory, reward: float) -> tuple[float, ...]:
    """What each turn earned. What an algorithm changed of the whole reward is the last turn's; where the environment
    named no turn, so is all of it.

    Args:
        reward: of the episode, shaped or not.
    """
    if not trajectory.turn_rewards:
        return (0.0,) * (max(1, len(trajectory.turn_tokens)) - 1) + (reward,)
    *before, last = trajectory.turn_rewards
    return (*before, last + reward - math.fsum(trajectory.turn_rewards))


def to_go(rewards: Sequence[float]) -> tuple[float, ...]:
    """What each turn and those after it earned."""
    return tuple(accumulate(reversed(rewards)))[::-1]


def turn_advantages(
    trajectories: Sequence[Trajectory],
    rewards: Sequence[float | None],
    *,
    scale: Literal["none", "std"] = "none",
    leave_one_out: bool = False,
    drop_uniform: bool = False,
) -> GroupAdvantages:
    """Center what turn t and those after it earned within the episodes of the group that reached turn t.

    Bias: what a turn does changes no reward before it, so leaving those out changes no expectation. The baseline has
    the episode itself among the n that reached the turn, so that the gradient of turn t is (n - 1) / n of the true
    one, as in GRPO, with an n that falls from turn to turn: late turns weigh less, and one that no other episode
    reached has 0. ``leave_one_out`` takes that factor back: the gradient is then the true one of every turn that two
    reached. Dividing by the deviation ("std") weighs groups as it does for whole episodes.

    Args:
        trajectories, rewards, leave_one_out, drop_uniform: as of ``group_advantages``.
        scale: "std" divides by the root of the mean square of the group's centered numbers.
    Returns:
        ``turns`` holds an advantage for each turn of each episode; ``values`` their mean.
    """
    kept = group_advantages(trajectories, rewards)
    members: dict[str, list[int]] = defaultdict(list)
    for index, value in enumerate(kept.values):
        if value is not None:
            members[trajectories[index].group_id].append(index)
    turns: list[tuple[float, ...] | None] = [None] * len(trajectories)
    num_uniform = 0
    for group in members.values():
        found = _centered(
            [to_go(rewards_of_turns(trajectories[index], float(rewards[index] or 0.0))) for index in group],
            scale=scale,
            leave_one_out=leave_one_out,
        )
        uniform = not any(any(row) for row in found)
        num_uniform += uniform
        if not (uniform and drop_uniform):
            for index, row in zip(group, found, strict=True):
                turns[index] = row
    values = tuple(None if row is None else math.fsum(row) / len(row) for row in turns)
    return replace(kept, values=values, num_uniform=num_uniform, turns=tuple(turns))


def _centered(
    returns: Sequence[Sequence[float]], *, scale: Literal["none", "std"], leave_one_out: bool
) -> list[tuple[float, ...]]:
    rows = [[0.0] * len(one) for one in returns]
    for turn in range(max(map(len, returns))):
        reached = [index for index, one in enumerate(returns) if len(one) > turn]
        own = [returns[index][turn] for index in reached]
        if len(reached) < 2 or min(own) == max(own):
            continue
        mean = math.fsum(own) / len(own)
        factor = len(own) / (len(own) - 1) if leave_one_out else 1.0
        for index, value in zip(reached, own, strict=True):
            rows[index][turn] = factor * (value - mean)
    cells = [value for row in rows for value in row]
    deviation = math.sqrt(math.fsum(value * value for value in cells) / len(cells))
    if scale == "std" and deviation > 0:
        return [tuple(value / deviation for value in row) for row in rows]
    return [tuple(row) for row in rows]


def plain_turns(trajectories: Sequence[Trajectory], rewards: Sequence[float | None], *, ahead: bool) -> GroupAdvantages:
    """``plain_advantages`` by turn: what each turn earned itself, or, ``ahead``, with those after it."""
    rows = [
        None if reward is None else rewards_of_turns(one, reward)
        for one, reward in zip(trajectories, rewards, strict=True)
    ]
    turns = tuple(to_go(row) if ahead and row is not None else row for row in rows)
    return replace(plain_advantages(trajectories, rewards), turns=turns)


def by_token(trajectory: Trajectory, turns: Sequence[float], num_trained: int) -> np.ndarray:
    """[N] the number of the turn that each trained token of an episode is in.

    Raises:
        TrainingError: the episode does not say which turn its tokens are of.
    """
    if len(turns) == 1:
        return np.full(num_trained, turns[0])
    _check(trajectory, turns, num_trained)
    return np.repeat(np.asarray(turns, np.float64), trajectory.turn_tokens)


def at_ends(trajectory: Trajectory, turns: Sequence[float], num_trained: int) -> np.ndarray:
    """[N] at the last token of each turn its number, 0 elsewhere.

    Raises:
        TrainingError: the episode does not say which turn its tokens are of.
    """
    found = np.zeros(num_trained)
    if len(turns) == 1:
        found[-1] = turns[0]
        return found
    _check(trajectory, turns, num_trained)
    np.add.at(found, np.maximum(np.cumsum(trajectory.turn_tokens) - 1, 0), turns)
    return found


def _check(trajectory: Trajectory, turns: Sequence[float], num_trained: int) -> None:
    if len(trajectory.turn_tokens) != len(turns) or sum(trajectory.turn_tokens) != num_trained:
        raise TrainingError(
            f"an episode of task {trajectory.task_id!r} has rewards of {len(turns)} turns, and its {num_trained} "
            f"trained tokens are of {len(trajectory.turn_tokens)} turns with {sum(trajectory.turn_tokens)}; set "
            "rl.train.credit = 'episode'"
        )
