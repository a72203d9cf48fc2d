"""Checkpoints of a sharded decoder: weights of any format straight into shards, and training states of any layout.

A training state is torch's distributed format under Hugging Face's names: {"model": {name: weight}, "optimizer":
{"exp_avg": {name: ...}, "exp_avg_sq": {name: ...}, "step": updates}}. Every layout reads what any other wrote;
``verigym convert`` and ``load_checkpoint`` read its weights.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from ...errors import CheckpointError
from ..checkpoint import check_shape
from ..decoder import Decoder
from ..families.find import write_config
from ..huggingface import HuggingFaceDecoder
from ..lora import AnyDecoder
from ..weights.checksums import check_sums
from ..weights.converted import read_weights
from ..weights.dcp import one_process
from ..weights.dcp_index import IndexReader, TensorPlanner
from ..weights.folders import existing
from ..weights.names import parts
from ..weights.sources import Block, open_source, read_part
from .views import local, views

MOMENTS = ("exp_avg", "exp_avg_sq")


@torch.no_grad()
def load_into_shards(path: Path | str, decoder: AnyDecoder) -> None:
    """Copy a checkpoint of any format into a decoder; each rank reads the blocks of its own shards, one at a time.

    A decoder laid out on the meta device is sharded first, then given memory with ``sharded.give_memory``.

    Raises:
        CheckpointError: something is missing, cut, of another shape (before anything is copied), or not finite.
    """
    for mine, found in read_shards(path, decoder):
        mine.copy_(found)


@torch.no_grad()
def read_shards(path: Path | str, decoder: AnyDecoder) -> Iterator[tuple[Tensor, Tensor]]:
    """(this rank's shard of a weight, what the checkpoint has for it). Raises CheckpointError, as above."""
    folder = existing(Path(path))
    if not isinstance(decoder, Decoder):
        yield from _read_theirs(folder, decoder)
        return
    check_shape(folder, decoder.config)
    config, source = open_source(folder)
    check_sums(folder, share=_share())
    by_name = {part.hf: part for part in parts(config)}
    _reshard(decoder)
    for name, view in views(decoder):
        mine = local(view)
        if mine.numel():
            yield mine, read_part(source, by_name[name], config.head_dim, block_of(view))


def _read_theirs(folder: Path, decoder: HuggingFaceDecoder) -> Iterator[tuple[Tensor, Tensor]]:
    check_sums(folder, share=_share())
    _reshard(decoder)
    found = {name: view for name, view in views(decoder) if local(view).numel()}
    for name, value in read_weights(folder, decoder.model, {name: block_of(view) for name, view in found.items()}):
        yield local(found[name]), value


def save_state(path: Path | str, decoder: Decoder, optimizer: torch.optim.Optimizer) -> None:
    """Write weights and moments; every rank must call this, and writes its own shards.

    Raises:
        CheckpointError: it could not be written.
    """
    folder = Path(path)
    write_pieces(folder, _state(decoder, optimizer))
    if not dist.is_initialized() or dist.get_rank() == 0:
        (folder / "config.json").write_text(json.dumps(write_config(decoder.config), indent=2) + "\n", encoding="utf-8")


def load_state(path: Path | str, decoder: Decoder, optimizer: torch.optim.Optimizer) -> None:
    """Read what ``save_state`` wrote, under this or any other layout; every rank must call this.

    Raises:
        CheckpointError: it is missing, broken, or of a decoder of another shape.
    """
    folder = Path(path)
    check_shape(folder, decoder.config)
    open_source(folder)  # names a missing or cut file
    state = _state(decoder, optimizer)
    read_pieces(folder, state)
    step = state["optimizer"]["step"]
    for kept in optimizer.state.values():
        kept["step"].copy_(step)


def write_pieces(folder: Path, state: Mapping[str, Any], *, group: dist.ProcessGroup | None = None) -> None:
    """Write tensors by their names, whole or DTensors, in torch's distributed format.

    Every rank of the group must call this, with the same names; each writes what it has, and a tensor that all have
    whole is written once.

    Raises:
        CheckpointError: it could not be written.
    """
    try:
        with one_process():
            dcp.save(dict(state), checkpoint_id=folder, process_group=group)
    except (OSError, CheckpointException) as error:
        raise CheckpointError(f"the training state {folder} could not be written ({error}); free some space") from error


def read_pieces(folder: Path, state: Mapping[str, Any], *, group: dist.ProcessGroup | None = None) -> None:
    """Fill tensors in place with what ``write_pieces`` wrote under their names, whatever split them then.

    Raises:
        CheckpointError: it is missing, broken, lacks a name, or has another shape under it.
    """
    try:
        with one_process():
            reader = IndexReader(folder)
            dcp.load(dict(state), storage_reader=reader, planner=TensorPlanner(), process_group=group)
    except (OSError, RuntimeError, ValueError, CheckpointException) as error:
        raise CheckpointError(f"the training state {folder} cannot be read ({error}); take an earlier one") from error


def _share() -> tuple[int, int]:
    """The part of a folder's files whose checksums this rank compares."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _state(decoder: Decoder, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Views of weights and moments; loading into them loads into decoder and optimizer."""
    _reshard(decoder)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter not in optimizer.state:
                zeros = {name: torch.zeros_like(parameter) for name in MOMENTS}
                optimizer.state[parameter] = {"step": torch.zeros((), dtype=torch.float32), **zeros}
    steps = {float(kept["step"]) for kept in optimizer.state.values()}
    assert len(steps) == 1, f"parameters have been updated {sorted(steps)} times; all are updated together"

    def moment(name: str) -> dict[str, Tensor]:
        return {key: view.detach() for key, view in views(decoder, lambda p: optimizer.state[p][name])}

    return {
        "model": {name: view.detach() for name, view in views(decoder)},
        "optimizer": {"step": torch.tensor(steps.pop()), **{name: moment(name) for name in MOMENTS}},
    }


def _reshard(decoder: AnyDecoder) -> None:
    # After a forward without a backward pass the head is still gathered, in the precision of the forward.
    if isinstance(decoder, FSDPModule):
        decoder.reshard()


def block_of(view: Tensor) -> Block | None:
    """Rows and columns that this rank has of a weight; None for all of them."""
    if not isinstance(view, DTensor):
        return None
    shape, offset = compute_local_shape_and_global_offset(view.shape, view.device_mesh, view.placements)
    return tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))
