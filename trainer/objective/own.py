"""An algorithm of one's own: a class that says what each sampled token of a group's episodes is worth."""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np

from ...agent.trajectory import Trajectory
from ...envs.importing import import_named
from ...errors import ConfigError, TrainingError
from ..recipe.algorithms import OwnConfig

Credits = Sequence[float | np.ndarray | Sequence[float] | None]


class Credit(Protocol):
    """What a recipe's ``algorithm = "MODULE:CLASS"`` names; it is made with the recipe's options."""

    def __call__(self, group: Sequence[Trajectory]) -> Credits:
        """
        Args:
            group: the episodes of one task in this step, without those that the infrastructure failed; each has
                segments (ids, loss mask, log-probabilities), messages, reward, breakdown.
        Returns:
            one entry an episode, in order: a number, the advantage of all its sampled tokens; numbers, one a sampled
            token (where ``segment.loss_mask`` is true, segment after segment); or None, which leaves it out.
        """
        ...


def load_credit(config: OwnConfig) -> Credit:
    """Import the class and make it.

    Raises:
        ConfigError: there is no such class, or it does not take the options.
    """
    module, _, name = config.algorithm.partition(":")
    try:
        made = getattr(import_named(module), name)(**config.options)
    except Exception as error:  # the user's own code: whatever it raises is told with its name
        raise ConfigError(
            f"algorithm {config.algorithm!r} cannot be made ({type(error).__name__}: {error}); it must be a class of "
            "an importable module that takes rl.train.options"
        ) from error
    if not callable(made):
        raise ConfigError(f"algorithm {config.algorithm!r} makes what cannot be called; give it __call__(group)")
    return cast("Credit", made)


def credits_of(config: OwnConfig, trajectories: Sequence[Trajectory]) -> list[np.ndarray | None]:
    """[N] float64 for each episode, its sampled tokens' advantages; None: it is left out.

    Raises:
        TrainingError: the class raised, or returned what is of another shape or not finite; it says for which task.
    """
    credit = load_credit(config)
    groups: dict[str, list[int]] = {}
    for index, trajectory in enumerate(trajectories):
        if trajectory.reward is not None:
            groups.setdefault(trajectory.group_id, []).append(index)
    found: list[np.ndarray | None] = [None] * len(trajectories)
    for members in groups.values():
        group = [trajectories[index] for index in members]
        try:
            given = list(credit(group))
        except Exception as error:  # the user's own code: whatever it raises is told with its name
            raise TrainingError(
                f"algorithm {config.algorithm!r} failed on task {group[0].task_id!r}: {type(error).__name__}: {error}"
            ) from error
        if len(given) != len(group):
            raise TrainingError(
                f"algorithm {config.algorithm!r} gave {len(given)} credits for the {len(group)} episodes of task "
                f"{group[0].task_id!r}; give one each"
            )
        for index, one in zip(members, given, strict=True):
            found[index] = None if one is None else _checked(one, config.algorithm, trajectories[index])
    return found


def _checked(given: Any, name: str, trajectory: Trajectory) -> np.ndarray:
    count = sum(sum(segment.loss_mask) for segment in trajectory.segments)
    told = f"algorithm {name!r} gave no numbers for task {trajectory.task_id!r}"
    try:
        numbers = np.asarray(given)
    except Exception as error:  # of an object of the user's: a ragged list, a tensor that wants a gradient
        raise TrainingError(f"{told}: {error}") from error
    if numbers.dtype.kind not in "biuf":
        raise TrainingError(f"{told}, but {given!s:.100}; give a number, or one a sampled token")
    values = numbers.astype(np.float64)
    if values.ndim == 0:
        values = np.full(count, float(values))
    if values.shape != (count,):
        raise TrainingError(
            f"algorithm {name!r} gave credits of shape {list(values.shape)} for an episode of task "
            f"{trajectory.task_id!r} with {count} sampled tokens; give a number, or one a sampled token"
        )
    largest = np.finfo(np.float32).max
    if not (np.abs(values) <= largest).all():
        raise TrainingError(
            f"algorithm {name!r} gave NaN, infinity or more than {largest:.2g} for task {trajectory.task_id!r}; mend it"
        )
    return values
