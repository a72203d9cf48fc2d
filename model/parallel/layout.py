"""How many ranks split what: a mesh with four axes.

    replicate   whole copies of what is below; gradients are summed (hybrid sharding)
    shard       parameters, gradients and optimizer states (FSDP2); each rank has packs of its own
    context     tokens of a pack: every rank has a stretch, and attention fetches the keys it needs
    tensor      heads and channels; between attention and SwiGLU the tokens (sequence parallel)

Parameters are sharded over shard x context together. Neighbouring ranks differ in ``tensor`` first, so that the axis
that talks most lies within a machine.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch.distributed as dist
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ...errors import ConfigError
from ..config import DecoderConfig

Recompute = Literal["none", "selective", "full"]
REPLICATE, FSDP, TENSOR, FLAT = "replicate", "fsdp", "tensor", "fsdp_tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Sizes of the axes, and what becomes of activations.

    Attributes:
        replicate, shard, context, tensor: ranks of each axis; 1 leaves it out.
        recompute: what the backward pass computes again: "none"; "selective", all of a layer but its attention; "full".
        offload: whether what is kept for the backward pass waits in the memory of the host.
        bf16: whether forward and backward run in bfloat16; weights, gradient sums and optimizer stay in float32.
    """

    replicate: int = 1
    shard: int = 1
    context: int = 1
    tensor: int = 1
    recompute: Recompute = "none"
    offload: bool = False
    bf16: bool = False

    def __post_init__(self) -> None:
        for name in ("replicate", "shard", "context", "tensor"):
            if getattr(self, name) < 1:
                raise ConfigError(f"the layout's {name} is {getattr(self, name)}; it must be at least 1")
        if self.recompute not in get_args(Recompute):
            raise ConfigError(f"recompute is {self.recompute!r}; it must be one of {', '.join(get_args(Recompute))}")

    @property
    def num_ranks(self) -> int:
        return self.replicate * self.shard * self.context * self.tensor

    @property
    def fsdp(self) -> int:
        """Ranks that parameters are sharded over, besides ``tensor``."""
        return self.shard * self.context

    @property
    def token_split(self) -> int:
        """Stretches that the tokens of one pack are cut into."""
        return self.context * self.tensor

    def check(self, config: DecoderConfig, num_tokens: int | None = None) -> None:
        """Raise ConfigError where a decoder, or packs of ``num_tokens``, cannot be split like this; it names why."""
        splits = (
            ("num_heads", self.tensor, "tensor"),
            ("num_kv_heads", self.tensor, "tensor"),
            ("intermediate_size", self.tensor, "tensor"),
            ("vocab_size", self.tensor, "tensor"),
            ("hidden_size", self.fsdp, "shard x context"),
        )
        for name, ways, axis in splits:
            value = getattr(config, name)
            if value % ways:
                raise ConfigError(f"{name} {value} cannot be split {ways} ways; choose {axis} to divide it")
        if num_tokens is not None and num_tokens > config.max_position_embeddings:
            raise ConfigError(
                f"a document of {num_tokens} tokens is beyond the model's {config.max_position_embeddings}; shorten it"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Meshes:
    """The mesh of ranks, and where this one stands.

    Attributes:
        weights: axes replicate, fsdp (shard x context), tensor: what parameters are split over.
        context: the ranks that have the stretches of one pack, in their order; a group of its own, so that keys do not
            wait behind weights.
        context_rank, tensor_rank: this rank's place in these axes.
    """

    weights: DeviceMesh
    context: ProcessGroup
    context_rank: int
    tensor_rank: int

    @classmethod
    def of(cls, layout: Layout, device_type: str) -> "Meshes":
        """Make the process groups; every rank of torch.distributed must call this."""
        shape = (layout.replicate, layout.fsdp, layout.tensor)
        weights = init_device_mesh(device_type, shape, mesh_dim_names=(REPLICATE, FSDP, TENSOR))
        weights[FSDP, TENSOR]._flatten(FLAT)  # for sums over all shards, such as a gradient's norm
        stretches = [
            list(range(first + tensor, first + layout.token_split, layout.tensor))
            for first in range(0, layout.num_ranks, layout.token_split)
            for tensor in range(layout.tensor)
        ]
        context, _ = dist.new_subgroups_by_enumeration(stretches)
        assert isinstance(context, ProcessGroup), "every rank is in one of the groups"
        rank = dist.get_rank()
        return cls(
            weights=weights,
            context=context,
            context_rank=rank // layout.tensor % layout.context,
            tensor_rank=rank % layout.tensor,
        )
