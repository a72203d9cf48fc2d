"""Weights to disk, one at a time: as Hugging Face's shards, or in torch's distributed format."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import MetadataIndex

from .sources import INDEX, WEIGHTS, one_process

SHARD_BYTES = 5 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """A weight that is made when it is written."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def write_safetensors(folder: Path, weights: list[Weight], *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write one file, or shards of at most ``shard_bytes`` and their index. One shard is held at a time."""
    shards = list(_shards(weights, shard_bytes))
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file({one.name: one.make().contiguous() for one in shard}, folder / name, metadata={"format": "pt"})
        where |= {one.name: name for one in shard}
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(one.num_bytes for one in weights)}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def write_dcp(folder: Path, weights: list[Weight]) -> None:
    """Write torch's distributed format, ``{"model": {name: weight}}``. One weight is held at a time."""
    state = {"model": {one.name: torch.empty(one.shape, dtype=one.dtype, device="meta") for one in weights}}
    planner = _LazyPlanner({f"model.{one.name}": one for one in weights})
    writer = dcp.FileSystemWriter(folder, single_file_per_rank=False, thread_count=1)
    with one_process():
        dcp.save(state, storage_writer=writer, planner=planner, no_dist=True)


class _LazyPlanner(DefaultSavePlanner):
    """Plans with weights of the meta device and makes each one when it is written."""

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        super().__init__()
        self._weights = weights

    def lookup_object(self, index: MetadataIndex) -> Any:
        return self._weights[index.fqn].make().contiguous()


def _shards(weights: list[Weight], shard_bytes: int) -> Iterator[list[Weight]]:
    shard: list[Weight] = []
    for one in weights:
        if shard and sum(w.num_bytes for w in shard) + one.num_bytes > shard_bytes:
            yield shard
            shard = []
        shard.append(one)
    if shard:
        yield shard
