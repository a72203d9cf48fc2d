"""Tensor and sequence parallel: each rank has a share of the heads and channels, and between them one of the tokens.

A layer on n ranks: the normed tokens [T / n, D] are gathered to [T, D]; each rank has H / n heads, or F / n channels of
the SwiGLU; what it writes to the residual stream, [T, D], is summed over the ranks and cut to [T / n, D] again.
Embedding and head work on the rank's own tokens with the whole vocabulary, whose rows are fetched from all ranks.

Parameters become DTensors of the axis "tensor". Where one stacks others (``qkv``, ``gate_up``), a rank has its share of
each, stacked: so the rows of the whole DTensor are not those of the whole weight. ``checkpoint.views`` takes the stacks
apart; use it, not ``full_tensor``, for what leaves the process.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from ..decoder import Decoder, Head, Layer, RMSNorm
from ..weights.names import stacks
from .collectives import gather_tokens, scatter_tokens


def split_tensors(decoder: Decoder, mesh: DeviceMesh) -> None:
    """Split a decoder in place over the ranks of a mesh with one axis, its weights alike on all of them."""
    size, rank = mesh.size(), mesh.get_local_rank()
    group = mesh.get_group()
    rows = {name: [part.shape[0] for part in parts] for name, parts in stacks(decoder.config)}

    def split(module: nn.Module, name: str, placement: Placement) -> None:
        weight = module.get_parameter("weight").detach()
        if isinstance(placement, Shard):
            dim = placement.dim
            pieces = weight.split(rows[name], dim=0) if dim == 0 else (weight,)
            weight = torch.cat([piece.chunk(size, dim=dim)[rank] for piece in pieces])
        local = weight.contiguous().clone() if weight.device.type != "meta" else weight
        module.weight = nn.Parameter(DTensor.from_local(local, mesh, [placement], run_check=False))

    for index, layer in enumerate(decoder.layers):
        assert isinstance(layer, Layer)
        attention, mlp, prefix = layer.attention, layer.mlp, f"layers.{index}"
        attention.num_heads //= size
        attention.num_kv_heads //= size
        for owner, name in ((attention, "qkv"), (mlp, "gate_up")):
            split(owner.get_submodule(name), f"{prefix}.{_room(owner)}.{name}.weight", Shard(0))
            _become(owner.get_submodule(name), ColumnLinear, group)
        for owner, name in ((attention, "out"), (mlp, "down")):
            split(owner.get_submodule(name), f"{prefix}.{_room(owner)}.{name}.weight", Shard(1))
            _become(owner.get_submodule(name), RowLinear, group)
        for name in ("attention_norm", "mlp_norm"):
            split(layer.get_submodule(name), f"{prefix}.{name}.weight", Replicate())
            _become(layer.get_submodule(name), SharedNorm, group)
    split(decoder.norm, "norm.weight", Replicate())
    _become(decoder.norm, SharedNorm, group)
    split(decoder.embed, "embed.weight", Shard(0))
    _become(decoder.embed, GatheredEmbedding, group)
    split(decoder.head, "head.weight", Shard(0))
    _become(decoder.head, GatheredHead, group)


class ColumnLinear(nn.Linear):
    """[T / n, D] tokens in, [T, rows / n] of them all out."""

    group: ProcessGroup

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(gather_tokens(input, self.group), _own(self.weight))


class RowLinear(nn.Linear):
    """[T, columns / n] in, [T / n, D] summed over the ranks out."""

    group: ProcessGroup

    def forward(self, input: Tensor) -> Tensor:
        return scatter_tokens(F.linear(input, _own(self.weight)), self.group)


class SharedNorm(RMSNorm):
    """A norm whose weight all ranks share while each has tokens of its own: gradients are summed."""

    def forward(self, x_TD: Tensor) -> Tensor:
        return F.rms_norm(x_TD, self.weight.shape, shared(self.weight), self.eps)


class GatheredEmbedding(nn.Embedding):
    """Rows of the whole vocabulary for the rank's own tokens."""

    def forward(self, input: Tensor) -> Tensor:
        return F.embedding(input, shared(self.weight))


class GatheredHead(Head):
    """The whole vocabulary for the rank's own tokens."""

    def matrix(self) -> Tensor:
        return shared(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.matrix())


def _own(weight: Tensor) -> Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight


def shared(weight: Tensor) -> Tensor:
    """The whole weight. Each rank's gradient is of its own tokens, a summand."""
    if not isinstance(weight, DTensor):
        return weight
    return weight.redistribute(placements=[Replicate()]).to_local(grad_placements=[Partial()])


def _become(module: nn.Module, kind: type[nn.Module], group: ProcessGroup) -> None:
    # The module keeps its name, its parameter and its settings; only what it does with the weight changes.
    module.__class__ = kind
    module.group = group  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]


def _room(owner: nn.Module) -> str:
    return "attention" if hasattr(owner, "qkv") else "mlp"
