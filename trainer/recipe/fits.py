"""What each part of a step needs of a rank's memory, its device's and its host's, and whether it has that."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ConfigError
from .cluster import ClusterConfig
from .layouts import model_config, why_theirs
from .recipe import Recipe

if TYPE_CHECKING:
    from ...model.lora import AnyDecoder
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

    The step of our own decoder is traced under fake tensors (``model.plan``), which takes seconds; with adapters as if
    all weights learned, which is more. That of a model of transformers is not: what it keeps for the backward pass is
    left out. The others are arithmetic: a shard of a weight has 4 bytes (2 where it is frozen in bfloat16) and each
    moment 4 more; adapters are whole on every rank; a block of the checkpoint is read at a time, or, where a model of
    transformers has in one weight what its files have in many, all of these; a save copies what is learned to the host;
    a publish copies the weights in the engines' precision, and keeps the copy where changes are sent.
    """
    theirs = why_theirs(recipe) is not None
    shapes, learned_whole = _shapes_of(recipe)
    ways = layout.fsdp * layout.tensor
    sizes = [math.prod(shape) / ways for shape in shapes]
    weights, largest = sum(sizes), max(sizes)
    stages = recipe.sampled_stages
    moments = 1 if stages and all(stage.optim.matrices == "muon" for stage in stages) else 2
    own = 2 if recipe.model.dtype == "bfloat16" else _FLOAT
    learned = learned_whole if recipe.model.lora is not None else weights
    saved = _FLOAT * (1 + moments) * learned
    resident = saved if recipe.model.lora is None else saved + own * weights
    bf16 = not theirs and recipe.engines is not None and recipe.engines.dtype == "bfloat16"
    copied = (2 if bf16 else own) * weights
    kept = copied if bf16 else 0.0
    if theirs:
        # Each layer's weights are whole while it is computed, and those outside of layers for the whole step.
        gathered = _FLOAT * ways * largest
        step = Need(
            what="step, activations left out", device_bytes=resident + _FLOAT * learned + gathered, host_bytes=kept
        )
        read = ways * largest  # of a weight that is many in the files
    else:
        from ...model.plan.search import trace_by_period

        tokens = max((stage.train.microbatch_tokens for stage in stages), default=recipe.model.max_context)
        traced = trace_by_period(model_config(recipe), layout, [tokens])
        more = saved if recipe.model.lora is not None else 0.0
        step, read = Need(what="step", device_bytes=traced.peak_bytes + more, host_bytes=kept), largest
    return [
        Need(what="load", device_bytes=own * weights, host_bytes=2 * _FLOAT * read),
        step,
        Need(what="publish", device_bytes=resident, host_bytes=kept + copied + _ENCODING * largest),
        Need(what="save", device_bytes=resident, host_bytes=kept + saved + _FLOAT * largest),
    ]


def _shapes_of(recipe: Recipe) -> tuple[list[tuple[int, ...]], int]:
    """(shapes of all weights below adapters, elements of these)."""
    import torch

    from ...model.huggingface import HuggingFaceDecoder
    from ...model.lora import adapter_weights, add_adapters
    from ...model.parallel.views import views
    from ...model.shape import Shape

    checkpoint = recipe.model.checkpoint
    dtype = getattr(torch, recipe.model.dtype)
    if why_theirs(recipe) is not None:
        assert checkpoint is not None, "no other model is of transformers"
        decoder: AnyDecoder = HuggingFaceDecoder.shape_of(checkpoint, dtype)
    else:
        decoder = Shape(config=model_config(recipe), dtype=dtype).empty()
    if recipe.model.lora is None:
        return [tuple(view.shape) for _, view in views(decoder)], 0
    add_adapters(decoder, **recipe.model.lora.model_dump())
    elements = sum(weight.numel() for weight in adapter_weights(decoder).values())
    return [tuple(view.shape) for _, view in views(decoder)], elements


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
