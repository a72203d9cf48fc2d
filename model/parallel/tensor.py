"""Tensor and sequence parallel: each rank has a share of the heads and channels, and between them one of the tokens.

A layer on n ranks: the normed tokens [T / n, D] are gathered to [T, D]; each rank has H / n heads, or F / n channels of
the MLP; what it writes to the residual stream, [T, D], is summed over the ranks and cut to [T / n, D] again.
Embedding and head work on the rank's own tokens with the whole vocabulary, whose rows are fetched from all ranks.

The engine has too few tokens to cut: there every rank has all of them, what is written to the residual stream is summed
for all, and each rank looks up, and makes logits of, its own rows of the vocabulary. Inference only.

Parameters become DTensors of the axis "tensor". Where one stacks others (``qkv``, ``gate_up``), a rank has its share of
each, stacked: so the rows of the whole DTensor are not those of the whole weight. ``checkpoint.views`` takes the stacks
apart; use it, not ``full_tensor``, for what leaves the process.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard

from ..decoder import Bias, Decoder, Head, Layer, RMSNorm, Tied
from ..weights.names import stacks
from .collectives import gather_tokens, scatter_tokens


def split_tensors(decoder: Decoder, mesh: DeviceMesh, *, split_tokens: bool = True) -> None:
    """Split a decoder in place over the ranks of a mesh with one axis, its weights alike on all of them.

    Args:
        split_tokens: each rank has tokens of its own, as in training; False: each has all of them, as in the engine.
    """
    kinds = _SPLIT_TOKENS if split_tokens else _ALL_TOKENS
    size, rank = mesh.size(), mesh.get_local_rank()
    group = mesh.get_group()
    rows = {name: [part.shape[0] for part in parts] for name, parts in stacks(decoder.config)}

    def split(module: nn.Module, name: str, placement: Placement, kept_as: str = "weight") -> None:
        weight = module.get_parameter(kept_as).detach()
        if isinstance(placement, Shard):
            dim = placement.dim
            pieces = weight.split(rows[name], dim=0) if dim == 0 else (weight,)
            weight = torch.cat([piece.chunk(size, dim=dim)[rank] for piece in pieces])
        local = weight.contiguous().clone() if weight.device.type != "meta" else weight
        setattr(module, kept_as, nn.Parameter(DTensor.from_local(local, mesh, [placement], run_check=False)))

    for index, layer in enumerate(decoder.layers):
        assert isinstance(layer, Layer)
        attention, mlp, prefix = layer.attention, layer.mlp, f"layers.{index}"
        attention.num_heads //= size
        attention.num_kv_heads //= size
        for owner, name in ((attention, "qkv"), (mlp, "gate_up")):
            split(owner.get_submodule(name), f"{prefix}.{_room(owner)}.{name}.weight", Shard(0))
            _become(owner.get_submodule(name), kinds.columns, group)
        for owner, name in ((attention, "out"), (mlp, "down")):
            split(owner.get_submodule(name), f"{prefix}.{_room(owner)}.{name}.weight", Shard(1))
            _become(owner.get_submodule(name), kinds.rows, group)
        bias = attention.bias
        if bias is not None:
            for name in ("q", "k", "v") if split_tokens else ():
                split(bias, f"{prefix}.attention.bias.{name}", Replicate(), name)
            _become(bias, SplitBias, group)
    # Norms are whole on every rank. In training each has tokens, or heads, of its own: their gradients are summands.
    for name, module in decoder.named_modules() if split_tokens else ():
        if isinstance(module, RMSNorm):
            split(module, f"{name}.weight", Replicate())
            _become(module, SharedNorm, group)
    split(decoder.embed, "embed.weight", Shard(0))
    _become(decoder.embed, kinds.embedding, group)
    if isinstance(decoder.head, Tied):
        _become(decoder.head, type(f"Tied{kinds.head.__name__}", (Tied, kinds.head), {}), group)
    else:
        split(decoder.head, "head.weight", Shard(0))
        _become(decoder.head, kinds.head, group)


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
    """A norm whose weight all ranks share while each has tokens or heads of its own: gradients are summed."""

    def own_weight(self) -> Tensor:
        return shared(self.weight)


class SplitBias(Bias):
    """Of the rank's own heads; all ranks have the whole."""

    group: ProcessGroup

    def own(self, part: Tensor) -> Tensor:
        return shared(part).chunk(self.group.size())[self.group.rank()]


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


class OwnColumns(nn.Linear):
    """[T, D] in, [T, rows / n] out."""

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, _own(self.weight))


class SummedRows(nn.Linear):
    """[T, columns / n] in, [T, D] summed over the ranks out."""

    group: ProcessGroup

    def forward(self, input: Tensor) -> Tensor:
        return _summed(F.linear(input, _own(self.weight)), self.group)


class SplitEmbedding(nn.Embedding):
    """Each rank looks up what lies in its rows; the others' summands are 0."""

    group: ProcessGroup

    def forward(self, input: Tensor) -> Tensor:
        rows = _own(self.weight)
        at = input - self.group.rank() * rows.shape[0]
        elsewhere = (at < 0) | (at >= rows.shape[0])
        found = F.embedding(at.masked_fill(elsewhere, 0), rows)
        return _summed(found.masked_fill_(elsewhere[:, None], 0.0), self.group)


class SplitHead(GatheredHead):
    """Logits of the rank's own rows of the vocabulary, then of all."""

    group: ProcessGroup

    def own_rows(self) -> Tensor:
        return _own(self.weight)

    def joined(self, logits_TV: Tensor) -> Tensor:
        return gather_tokens(logits_TV.T, self.group).T.contiguous()

    def forward(self, input: Tensor) -> Tensor:
        return self.joined(F.linear(input, self.own_rows()))


class _Kinds(NamedTuple):
    """What the modules of a split decoder become."""

    columns: type[nn.Module]
    rows: type[nn.Module]
    embedding: type[nn.Module]
    head: type[nn.Module]


_SPLIT_TOKENS = _Kinds(ColumnLinear, RowLinear, GatheredEmbedding, GatheredHead)
_ALL_TOKENS = _Kinds(OwnColumns, SummedRows, SplitEmbedding, SplitHead)


def _summed(x: Tensor, group: ProcessGroup) -> Tensor:
    dist.all_reduce(x, group=group)
    return x


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
