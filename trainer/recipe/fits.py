"""What each part of a step needs of a rank's memory, its device's and its host's, and whether it has that."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ConfigError
from .cluster import ClusterConfig
from .layouts import model_config
from .recipe import Recipe

if TYPE_CHECKING:
    from ...model.parallel.layout import Layout

GIB = 1 << 30
_FLOAT = 4
_ENCODING = 24
"""Bytes of an element while its changes are looked for: both values, whether they differ, places of 8 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Memory of one rank.

    Attributes:
        what: "load", "step", "publish" or "save".
        device_bytes, host_bytes: at most, at the same time.
    """

    what: str
    device_bytes: float
    host_bytes: float


def needs_of_rank(recipe: Recipe, layout: "Layout") -> list[Need]:
    """What a rank of nothing but shards needs, from its first reading to its last writing.

    The step is traced under fake tensors (``model.plan``), which takes seconds; the others are arithmetic: a shard of a
    weight has 4 bytes and each moment 4 more; a block of the checkpoint is read at a time; a save copies all of it to
    the host; a publish copies the weights in the engines' precision, and keeps the copy where changes are sent.
    """
    from ...model.plan.search import trace_by_period
    from ...model.weights.names import parts

    config = model_config(recipe)
    ways = layout.fsdp * layout.tensor
    sizes = [math.prod(part.shape) / ways for part in parts(config)]
    weights, largest = sum(sizes), max(sizes)
    stages = recipe.sampled_stages
    moments = 1 if stages and all(stage.optim.matrices == "muon" for stage in stages) else 2
    resident = _FLOAT * (1 + moments) * weights
    bf16 = recipe.engines is not None and recipe.engines.dtype == "bfloat16"
    copied = (2 if bf16 else _FLOAT) * weights
    tokens = max((stage.train.microbatch_tokens for stage in stages), default=recipe.model.max_context)
    traced = trace_by_period(config, layout, [tokens])
    kept = copied if bf16 else 0.0
    return [
        Need(what="load", device_bytes=_FLOAT * weights, host_bytes=2 * _FLOAT * largest),
        Need(what="step", device_bytes=traced.peak_bytes, host_bytes=kept),
        Need(what="publish", device_bytes=resident, host_bytes=kept + copied + _ENCODING * largest),
        Need(what="save", device_bytes=resident, host_bytes=kept + resident + _FLOAT * largest),
    ]


def check_fits(needs: Sequence[Need], config: ClusterConfig) -> None:
    """Raises ConfigError where a rank has less memory than one of the needs, with the remedy. Without GPUs its device
    is its host."""
    for need in needs:
        if config.rank_gpus:
            _check(need.what, "device", need.device_bytes, config.gpu_gib, "gpu_gib")
            _check(need.what, "host", need.host_bytes, config.rank_host_gib, "rank_host_gib")
        else:
            _check(need.what, "host", need.device_bytes + need.host_bytes, config.rank_host_gib, "rank_host_gib")


def _check(what: str, where: str, amount: float, limit: float, setting: str) -> None:
    if amount > limit * GIB:
        raise ConfigError(
            f"a rank's {what} takes {amount / GIB:.1f} GiB of its {where}'s memory, and cluster.{setting} is "
            f"{limit:g}; take more ranks, another [layout] (tensor, recompute = 'full'), or raise the setting where "
            "there is more"
        )
