"""A rank's part of new weights for engines: all of it, or what has changed since it last published."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from ...errors import CheckpointError
from ...model.parallel.checkpoint import block_of
from ...model.weights.delta import Block, encoded, sum_of, write_blocks
from ..learning.pieces import WEIGHTS, PieceWriter, copied

Sums = Mapping[str, tuple[int, Block]]
"""Hugging Face's name -> (``sum_of`` a rank's block, where that lies in the weight)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a rank has published.

    Attributes:
        num_bytes: that it wrote, where it wrote changes; 0 of whole weights.
        sums: of its blocks.
    """

    num_bytes: int
    sums: Sums


class Publisher:
    """Keeps a copy of what this rank has last published in the host's memory: in bfloat16 2 bytes a weight, divided by
    the ranks that split it."""

    def __init__(self, writer: PieceWriter) -> None:
        """
        Args:
            writer: of whole weights, over a process group that nothing else uses.
        """
        self._writer = writer
        self._now: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}

    def stage(self, pieces: Mapping[str, Tensor], dtype: torch.dtype | None) -> None:
        """Copy the weights of now, in the dtype of the engines."""
        self._now = copied(pieces, dtype)

    def write(self, folder: Path, *, whole: bool, remember: bool) -> Part:
        """Write what was staged. Every rank must call this; it may be called on any thread.

        Args:
            whole: write all of it; else what has changed since the publish before, which must have been remembered.
            remember: later changes are of these weights.
        Raises:
            CheckpointError: it could not be written.
        """
        now, self._now = self._now, {}
        blocks = {name.removeprefix(f"{WEIGHTS}."): _local(value) for name, value in now.items()}
        num_bytes = 0
        if whole:
            self._writer.stage(now)
            self._writer.write(folder, sums=False)
        else:
            assert self._last.keys() == blocks.keys(), "changes are of weights that were published before"
            changed = {name: (block, encoded(self._last[name], value)) for name, (value, block) in blocks.items()}
            try:
                num_bytes = write_blocks(folder, dist.get_rank(), changed)
            except OSError as error:
                raise CheckpointError(
                    f"new weights could not be written to {folder} ({error}); free some space"
                ) from error
        sums = {name: (sum_of(value, block), block) for name, (value, block) in blocks.items()}
        if remember:
            self._last = {name: value for name, (value, _) in blocks.items()}
        return Part(num_bytes=num_bytes, sums=sums)

    def forget(self) -> None:
        """The weights are others now."""
        self._last = {}


def _local(value: Tensor) -> tuple[Tensor, Block]:
    """(this rank's part, where it lies)."""
    local = value.to_local() if isinstance(value, DTensor) else value
    return local, Block.of(tuple(value.shape), block_of(value))
