"""What a stage that learns from samples trains on: the families' mixture, each one's settings, measured tasks."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from ...agent.policy import Policy
from ..recipe.per_family import ConfigOf
from ..recipe.stages import RLStage
from .evaluation import pass_counts
from .families import Family
from .mixture import TaskMixture


def mixture_of(families: Sequence[Family], settings: RLStage, seed: int) -> TaskMixture:
    """The training tasks of all families, in their shares and order."""
    return TaskMixture(
        {family.config.name: family.train for family in families},
        {family.config.name: family.config.weight for family in families},
        seed=seed,
        difficulty=settings.difficulty,
        shares={family.config.name: family.weights for family in families},
    )


def config_of_families(families: Sequence[Family], settings: RLStage, mixture: TaskMixture) -> ConfigOf | None:
    """The algorithm's settings of each task; None where no family has any of its own."""
    own = {family.config.name: family.config.trained_in(settings) for family in families}
    if all(config is settings.train for config in own.values()):
        return None
    return lambda family, task_id: own[mixture.family_of(family, task_id)]


async def measure_tasks(
    families: Sequence[Family],
    settings: RLStage,
    mixture: TaskMixture,
    sampling: tuple[Policy, int],
    *,
    seed: int,
    folder: Path,
    tell: Callable[[int, int], None],
) -> None:
    """Sample every training task under the starting weights, as often as ``difficulty.samples`` says, and tell the
    mixture how often it was solved.

    Args:
        sampling: the policy under the starting weights, and the tokens of its context.
        folder: of the verdicts, one folder a family; what is there already is not sampled again.
        tell: (episodes done, episodes in all).
    """
    assert settings.difficulty is not None
    samples, done = settings.difficulty.samples, itertools.count(1)
    total = samples * sum(len(family.train) for family in families)
    for family in families:
        name, train = family.config.name, family.config.trained_in(settings)
        counts = await pass_counts(
            family,
            family.train,
            *sampling,
            samples=samples,
            temperature=train.temperature,
            seed=seed,
            concurrency=train.concurrency,
            out=folder / name,
            tell=lambda: tell(next(done), total),
        )
        mixture.measure(name, counts)
