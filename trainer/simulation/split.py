"""How many GPUs should train, and how many sample."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ...errors import ConfigError
from .run import Outcome, Shape, simulate
from .workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One way to split a cluster.

    Attributes:
        trainer_gpus, engines: its parts.
        outcome: what a run on it comes to.
    """

    trainer_gpus: int
    engines: int
    outcome: Outcome


def best_split(workload: Workload, shape: Shape, gpus: int, *, unit: int = 1, steps: int = 16, seed: int = 0) -> Split:
    """The split of so many GPUs with the shortest step; of equal ones that with fewer trainer GPUs.

    Args:
        unit: trainer GPUs come in multiples of it: the ranks that split the model at the least.
    Raises:
        ConfigError: there is no split that leaves something to both.
    """
    found = [
        Split(
            trainer_gpus=trainer,
            engines=engines,
            outcome=simulate(workload, replace(shape, engines=engines, trainer_gpus=trainer), steps=steps, seed=seed),
        )
        for trainer, engines in _splits(workload, gpus, unit)
    ]
    if not found:
        raise ConfigError(
            f"{gpus} GPUs cannot be split between a trainer of {unit} or more and engines of {workload.engine.gpus}"
        )
    return min(found, key=lambda one: (one.outcome.step_seconds, one.trainer_gpus))


def _splits(workload: Workload, gpus: int, unit: int) -> Iterator[tuple[int, int]]:
    """At most sixteen, from a trainer of an eighth or so of the GPUs to one of all but an engine."""
    size = workload.engine.gpus
    most = (gpus - size) // unit
    for step in sorted({max(1, round(most * share / 16)) for share in range(1, 17)}):
        trainer = step * unit
        if 0 < step <= most and gpus - trainer >= size:
            yield trainer, (gpus - trainer) // size
