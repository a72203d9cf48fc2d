"""What a run needs of a cluster, and whether the cluster has it. Nothing here imports Ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...errors import ConfigError
from ...model.parallel.layout import Layout
from ..recipe.cluster import ClusterConfig
from ..recipe.recipe import Recipe

Bundle = Mapping[str, float]
"""Name of a resource -> amount; all of it on one machine."""

GPU, SANDBOX = "GPU", "sandbox"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bundles that are placed together, all or none.

    Attributes:
        name: what they are for, in words.
        bundles: one for each of what is placed.
        strategy: Ray's name of how they are laid out.
    """

    name: str
    bundles: tuple[Bundle, ...]
    strategy: Literal["PACK", "SPREAD", "STRICT_PACK"]


def trainer_need(config: ClusterConfig, layout: Layout) -> Need:
    """A bundle for each tensor group: its ranks talk the most, and a bundle lies on one machine."""
    size = layout.tensor
    bundle = _bundle(CPU=size * config.rank_cpus, GPU=size * config.rank_gpus)
    return Need(name="ranks", bundles=(bundle,) * (layout.num_ranks // size), strategy="PACK")


def engine_need(config: ClusterConfig, tensor_parallel: int) -> Need:
    """One engine, on one machine."""
    bundle = _bundle(CPU=config.engine_cpus, GPU=tensor_parallel * config.rank_gpus)
    return Need(name="engine", bundles=(bundle,), strategy="STRICT_PACK")


def worker_need(config: ClusterConfig) -> Need:
    """Episode workers, over as many machines as there are."""
    bundle = _bundle(CPU=config.worker_cpus, **{SANDBOX: config.sandbox})
    return Need(name="episode workers", bundles=(bundle,) * config.workers, strategy="SPREAD")


def most_workers(machines: Sequence[Bundle], config: ClusterConfig, others: Sequence[Need] = ()) -> int:
    """How many episode workers find a place beside other needs.

    Args:
        machines: what each has free.
        config: what a worker takes.
    """
    count = int(sum(one.get(SANDBOX, 0.0) / config.sandbox for one in machines))
    while count and missing(machines, [*others, worker_need(config.model_copy(update={"workers": count}))]):
        count -= 1
    return count


def needs_of(recipe: Recipe, layout: Layout) -> list[Need]:
    """Everything that a run places, the controller first.

    Raises:
        ConfigError: the recipe has no engines to be placed.
    """
    config = cluster_of(recipe)
    assert recipe.engines is not None, "cluster_of has looked"
    engine = engine_need(config, recipe.engines.tensor_parallel)
    controller = Need(name="controller", bundles=(_bundle(CPU=config.controller_cpus),), strategy="PACK")
    return [controller, trainer_need(config, layout), *(engine,) * recipe.engines.count, worker_need(config)]


def cluster_of(recipe: Recipe) -> ClusterConfig:
    """What a recipe says of a cluster, or the defaults.

    Raises:
        ConfigError: it has no engines that Ray could place.
    """
    if recipe.engines is None or not recipe.engines.count:
        raise ConfigError("on a cluster engines sample in processes of their own; set engines.count")
    if recipe.engines.gpus:
        raise ConfigError("on a cluster Ray chooses the engines' GPUs; remove engines.gpus")
    return recipe.cluster or ClusterConfig()


def missing(machines: Sequence[Bundle], needs: Sequence[Need]) -> str | None:
    """What a cluster lacks, in words; None where everything has a place.

    The largest bundles are placed first, each on the fullest machine that still has room for it, so that what would
    fit is not refused for the order in which it was looked at. (No packing is best in every case: this one can refuse
    what a search over all would place, where machines are nearly full.)

    Args:
        machines: what each has free.
    """
    free = [dict(machine) for machine in machines]
    placed: dict[str, int] = {}
    wanted: dict[str, list[Bundle]] = {}
    for need in needs:
        wanted.setdefault(need.name, []).extend(need.bundles)
    todo = [(name, bundle) for name, bundles in wanted.items() for bundle in bundles]
    todo.sort(key=lambda one: (one[1].get(GPU, 0.0), sum(one[1].values())), reverse=True)
    for name, bundle in todo:
        able = [machine for machine in free if all(machine.get(key, 0.0) >= value for key, value in bundle.items())]
        if not able:
            continue
        chosen = min(able, key=lambda machine: sum(machine.get(key, 0.0) for key in bundle))
        for key, value in bundle.items():
            chosen[key] -= value
        placed[name] = placed.get(name, 0) + 1
    short = [
        f"{len(bundles) - placed.get(name, 0)} of {len(bundles)} {name} ({told(bundles[0])} each, on one machine)"
        for name, bundles in wanted.items()
        if placed.get(name, 0) < len(bundles)
    ]
    return None if not short else f"no place for {'; '.join(short)}"


def told(bundle: Bundle) -> str:
    """A bundle, or what is free, for people."""
    return ", ".join(f"{value:g} {key}" for key, value in bundle.items()) or "nothing"


def _bundle(**resources: float) -> Bundle:
    return {name: float(value) for name, value in resources.items() if value}
