"""Shards to whole tensors and back, whatever split them: for checkpoints, engines, and other numbers of ranks."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from ..decoder import Decoder
from ..lora import has_adapters
from ..weights.names import Part, stacks
from .checkpoint import block_of
from .views import unstack

Stacks = dict[str, list[Part]]


def stacks_of(module: nn.Module) -> Stacks:
    """What is stacked in each weight of the decoders in a module, by the weight's name in the module."""
    found: Stacks = {}
    for prefix, inner in module.named_modules():
        if isinstance(inner, Decoder) and not has_adapters(inner):  # tensor parallel alone cuts the rows of a stack
            found |= {f"{prefix}.{name}".lstrip("."): list(stacked) for name, stacked in stacks(inner.config)}
    return found


def reshard(module: nn.Module) -> None:
    """Give up what a forward without a backward pass has left gathered; parameters are shards again."""
    for inner in module.modules():
        if isinstance(inner, FSDPModule):
            inner.reshard()


@torch.no_grad()
def gather(value: Tensor, stacked: list[Part] | None = None) -> Tensor:
    """The whole of a tensor in this package's own order of rows. Every rank must call this, and gets it.

    Args:
        value: a shard; anything else is whole already, and is returned as it is.
        stacked: what is stacked in it.
    """
    if not isinstance(value, DTensor):
        return value
    pieces = unstack(value, stacked) if stacked is not None else [value]
    wholes = [piece.full_tensor() for piece in pieces if isinstance(piece, DTensor)]
    return torch.cat(wholes) if len(wholes) > 1 else wholes[0]


@torch.no_grad()
def spread(source: Tensor, into: Tensor, stacked: list[Part] | None = None) -> None:
    """Copy a whole tensor of rank 0 into a tensor of every rank, sharded or not. Every rank must call this.

    Args:
        source: whole; its numbers are read on rank 0 alone, elsewhere it may be on the meta device.
    """
    if dist.is_initialized() and dist.get_world_size() > 1:
        source = source.to(into.device) if dist.get_rank() == 0 else torch.empty_like(source, device=into.device)
        source = source.contiguous()
        dist.broadcast(source, src=0)
    cut(source, into, stacked)


@torch.no_grad()
def cut(whole: Tensor, into: Tensor, stacked: list[Part] | None = None) -> None:
    """Copy what this rank has of a whole tensor into a shard, or all of it into a tensor that is whole."""
    if not isinstance(into, DTensor):
        into.copy_(whole)
        return
    views = unstack(into, stacked) if stacked is not None else [into]
    for view, piece in zip(views, whole.split([view.shape[0] for view in views]), strict=True):
        block = block_of(view)
        assert isinstance(view, DTensor)
        local = view.to_local()
        if local.numel():
            local.copy_(piece if block is None else piece[block])


def gather_module(module: nn.Module) -> dict[str, Tensor]:
    """A state dict of whole tensors on the CPU, nothing of which changes later. Every rank must call this."""
    reshard(module)
    stacked = stacks_of(module)
    found = {}
    for name, value in module.state_dict().items():
        found[name] = gather(value, stacked.get(name)).detach().to("cpu", copy=True)
    return found


def spread_module(state: Mapping[str, Tensor], module: nn.Module) -> None:
    """Load rank 0's state dict of whole tensors on every rank; see ``spread``. Every rank must call this."""
    reshard(module)
    stacked = stacks_of(module)
    for name, value in module.state_dict().items():
        spread(state[name], value, stacked.get(name))
