"""``verigym plan --rollouts``: how a cluster is best split between training and sampling."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...terminal import console
from ..recipe.recipe import Recipe
from ..simulation.run import Shape
from ..simulation.split import Split, best_split
from ..simulation.workload import Workload, read_run, read_stated

SMALLEST = 64


def plan_rollouts(recipe: Recipe, source: Path, gpus: int, *, as_json: bool = False) -> int:
    """Simulate the recipe's reinforcement learning on 64, 128, ... up to ``gpus`` GPUs; print the best split of each.

    Args:
        source: a file that states what episodes, engines and updates take, or the folder of a run that measured them.
    Raises:
        ConfigError: the recipe has no reinforcement learning, or the source says too little.
    """
    if recipe.rl is None:
        raise ConfigError("--rollouts simulates reinforcement learning, and the recipe has none; give one with rl")
    workload = _read(recipe, source)
    settings = recipe.rl.train
    shape = Shape(
        num_tasks=settings.num_tasks,
        group_size=settings.group_size,
        max_lag=None if recipe.rl.asynchronous is None else recipe.rl.asynchronous.max_lag,
        concurrency=settings.concurrency,
        engines=1,
    )
    unit = recipe.layout.tensor * recipe.layout.context * recipe.layout.replicate
    found = {count: best_split(workload, shape, count, unit=unit) for count in _counts(gpus)}
    if as_json:
        rows = {count: asdict(split) for count, split in found.items()}
        print(json.dumps({"recipe": recipe.name, "splits": rows}, indent=2))
    else:
        _print(recipe, workload, found)
    return 0


def _read(recipe: Recipe, source: Path) -> Workload:
    if not source.is_dir():
        return read_stated(source)
    assert recipe.rl is not None, "the caller has looked"
    engines = 1 if recipe.engines is None else recipe.engines.count or len(recipe.engines.urls)
    return read_run(source, concurrency=recipe.rl.train.concurrency, engines=engines)


def _counts(gpus: int) -> list[int]:
    counts = [SMALLEST << power for power in range(gpus.bit_length()) if SMALLEST << power < gpus]
    return [*counts, gpus]


def _print(recipe: Recipe, workload: Workload, found: dict[int, Split]) -> None:
    from rich.table import Table

    table = Table(title=f"{recipe.name}: the best split, simulated", title_justify="left")
    for name in ("GPUs", "train", "engines", "step, s", "sampled tokens/s", "engines busy", "trainer busy", "lag"):
        table.add_column(name, justify="right")
    for count, split in found.items():
        table.add_row(*_row(count, split, workload.engine.gpus))
    console().print(table)


def _row(count: int, split: Split, size: int) -> tuple[Any, ...]:
    outcome = split.outcome
    return (
        f"{count}",
        f"{split.trainer_gpus}",
        f"{split.engines} x {size}",
        f"{outcome.step_seconds:.1f}",
        f"{outcome.tokens_per_second:,.0f}",
        f"{outcome.engines_busy:.0%}",
        f"{outcome.trainer_busy:.0%}",
        f"{outcome.lag_mean:.1f}, at most {outcome.lag_max}",
    )
