"""Where an engine's new weights come from, and how both sides see that they are the same."""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ...errors import CheckpointError
from ..checkpoint import load_weights
from ..decoder import Decoder
from ..parallel.objects import all_gather_json, broadcast_json
from ..weights.delta import Published
from .deltas import bring, forget

LoadWeights = Callable[[Decoder], None]
"""Gives an engine's decoder new weights. Where it raises it has written nothing: the engine goes on with the old."""


def from_checkpoint(path: Path | str) -> LoadWeights:
    """Copy them from a folder of safetensors, or of torch's distributed format. What is returned can be pickled, so
    that it reaches the ranks of a tensor-parallel engine, where each reads its own shards."""
    return partial(_copy, path)


def _copy(path: Path | str, decoder: Decoder) -> None:
    if Published.read(Path(path)) is not None:
        bring(Path(path), decoder, _read)
    else:
        _read(path, decoder)
        forget(decoder)


def _read(path: Path | str, decoder: Decoder) -> None:
    if not any(hasattr(parameter, "placements") for parameter in decoder.parameters()):  # no DTensor among them
        load_weights(path, decoder)
        return
    from ..parallel.checkpoint import read_shards  # it imports sympy, a second of every process that has no shards

    problem, found = None, []
    try:
        found = list(read_shards(path, decoder))
    except CheckpointError as error:
        problem = str(error)
    agree(problem)
    with torch.no_grad():
        for local, value in found:
            local.copy_(value)


def shared_with(source: Decoder) -> LoadWeights:
    """Use the very memory of another decoder, such as the trainer's: nothing is copied, and each later change of it in
    place is a change of the engine's weights, which ``Generator.update_weights`` must be told.

    Raises:
        CheckpointError (when loading): another shape, dtype or device.
    """

    def load(decoder: Decoder) -> None:
        theirs = dict(source.named_parameters())
        _compare(_manifest(decoder), _manifest(source), "the decoder to share with")
        for name, parameter in decoder.named_parameters():
            if theirs[name].device != parameter.device:
                raise CheckpointError(
                    f"{name} is on {theirs[name].device} and the engine's on {parameter.device}; "
                    "memory cannot be shared between devices: use a broadcast"
                )
        with torch.no_grad():
            for name, parameter in decoder.named_parameters():
                parameter.data = theirs[name].data

    return load


def send_weights(decoder: Decoder, group: dist.ProcessGroup | None = None) -> None:
    """Broadcast a decoder's weights from this process to engines that load ``received``.

    Args:
        group: this process has rank 0 in it, every other one receives; None for the default group.
    Raises:
        CheckpointError: a receiver's decoder is of another shape or dtype; nothing has been sent.
    """
    broadcast_json(_manifest(decoder), group=group)
    agree(None, group)
    for tensor in _tensors(decoder).values():
        dist.broadcast(tensor.detach().contiguous(), group=group, group_src=0)


def received(group: dist.ProcessGroup | None = None) -> LoadWeights:
    """Take them from rank 0 of a group, where ``send_weights`` is called at the same time."""

    def load(decoder: Decoder) -> None:
        manifest, problem = broadcast_json(None, group=group), None
        try:
            _compare(_manifest(decoder), manifest, "the sender's decoder")
        except CheckpointError as error:
            problem = str(error)
        agree(problem, group)
        with torch.no_grad():
            for tensor in _tensors(decoder).values():
                into = tensor if tensor.is_contiguous() else torch.empty_like(tensor).contiguous()
                dist.broadcast(into, group=group, group_src=0)
                if into is not tensor:
                    tensor.copy_(into)

    return load


def checksums(module: nn.Module) -> dict[str, str]:
    """SHA-256 of the dtype, the shape and the bytes of every parameter and buffer, by name."""
    found = {}
    for name, tensor in _tensors(module).items():
        digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        found[name] = digest.hexdigest()
    return found


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict([*module.named_parameters(), *module.named_buffers()])


def _manifest(module: nn.Module) -> dict[str, list[Any]]:
    return {name: [list(tensor.shape), str(tensor.dtype)] for name, tensor in _tensors(module).items()}


def _compare(mine: dict[str, Any], theirs: dict[str, Any], whose: str) -> None:
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            raise CheckpointError(
                f"{whose} has {name} as {theirs.get(name)} and the engine's as {mine.get(name)}; "
                "build both from one config"
            )


def agree(problem: str | None, group: dist.ProcessGroup | None = None) -> None:
    """Every member hears of the first problem that any has, so that none is left waiting."""
    first = next((found for found in all_gather_json(problem, group=group) if found is not None), None)
    if first is not None:
        raise CheckpointError(first)
