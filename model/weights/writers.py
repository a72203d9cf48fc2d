"""Weights to disk, one at a time, as Hugging Face's shards."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from .sources import INDEX, WEIGHTS

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


def _shards(weights: list[Weight], shard_bytes: int) -> Iterator[list[Weight]]:
    shard: list[Weight] = []
    for one in weights:
        if shard and sum(w.num_bytes for w in shard) + one.num_bytes > shard_bytes:
            yield shard
            shard = []
        shard.append(one)
    if shard:
        yield shard
