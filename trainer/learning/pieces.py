"""What learns, as named tensors that stay where they are: written by every rank, read back under any layout."""

import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ...errors import CheckpointError
from ...model.decoder import Decoder
from ...model.huggingface import HuggingFaceDecoder
from ...model.lora import AnyDecoder, adapter_weights, additions, has_adapters
from ...model.parallel.checkpoint import block_of, write_pieces
from ...model.parallel.objects import all_gather_json
from ...model.parallel.views import local, unstack, views
from ...model.parallel.whole import Stacks, reshard, stacks_of
from ...model.weights.checksums import digests
from ...model.weights.dcp_index import read_index

WEIGHTS = "model"
"""Prefix of the weights of what is trained, under Hugging Face's names: a reader of checkpoints finds them by it."""


def pieces_of(name: str, value: Tensor, stacks: Stacks) -> Iterator[tuple[str, Tensor]]:
    """(name, view) of the parts that are stacked in a tensor; of any other the tensor itself."""
    stacked = stacks.get(name)
    if stacked is None or len(stacked) == 1 or value.dim() == 0:
        yield name, value.detach()
        return
    for number, view in enumerate(unstack(value.detach(), stacked)):
        yield f"{name}.{number}", view


def module_pieces(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    """Everything in a module's state, by names below ``prefix``; a decoder's weights have Hugging Face's names. Of a
    decoder with adapters these alone."""
    reshard(module)
    if isinstance(module, Decoder | HuggingFaceDecoder):
        return {f"{prefix}.{name}": view.detach() for name, view in learned(module)}
    stacks = stacks_of(module)
    return {
        f"{prefix}.{piece}": view
        for name, value in module.state_dict().items()
        for piece, view in pieces_of(name, value, stacks)
    }


def learned(decoder: AnyDecoder) -> Iterator[tuple[str, Tensor]]:
    """(name, view) of what is trained of a decoder."""
    return iter(adapter_weights(decoder).items()) if has_adapters(decoder) else views(decoder)


@torch.no_grad()
def merged_pieces(decoder: AnyDecoder) -> dict[str, Tensor]:
    """A decoder's weights below ``WEIGHTS``, under Hugging Face's names; what adapters have learned is added, to this
    rank's part of each."""
    reshard(decoder)
    added = additions(decoder) if has_adapters(decoder) else {}
    found = {}
    for name, view in views(decoder):
        if name in added:
            mine = local(view)
            mine = (mine.float() + added[name](block_of(view))).to(mine.dtype)
            view = like(view, mine)
        found[f"{WEIGHTS}.{name}"] = view.detach()
    return found


def names_in(folder: Path) -> Collection[str]:
    """Of the tensors that a folder holds. Raises CheckpointError where it cannot be read."""
    return read_index(folder).state_dict_metadata.keys()


@torch.no_grad()
def copied(pieces: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The same in the memory of the host; of a DTensor this rank's part alone.

    Args:
        dtype: of floating-point tensors; None: their own.
    """
    return {name: _copied(value, dtype) for name, value in pieces.items()}


def _copied(value: Tensor, dtype: torch.dtype | None) -> Tensor:
    wanted = dtype if dtype is not None and value.is_floating_point() else value.dtype
    if not isinstance(value, DTensor):
        return value.detach().to("cpu", wanted, copy=True)
    return like(value, value.to_local().detach().to("cpu", wanted, copy=True).contiguous())


def like(value: Tensor, mine: Tensor) -> Tensor:
    """A tensor that is split as another is, of which this rank has the part ``mine``."""
    if not isinstance(value, DTensor):
        return mine
    stride = torch.empty(value.shape, device="meta").stride()
    return DTensor.from_local(
        mine, value.device_mesh, value.placements, run_check=False, shape=value.shape, stride=stride
    )


class PieceWriter:
    """Writes copies of a rank's pieces beside its work, over a process group of its own."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        """
        Args:
            group: all ranks, over gloo, used by nothing else; None: this process is alone.
        """
        self._group = group
        self._staged: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def stage(self, pieces: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> None:
        """Copy what is to be written; it may change afterwards."""
        with self._lock:
            self._staged = copied(pieces, dtype)

    def write(self, folder: Path, *, sums: bool = True) -> dict[str, str]:
        """Write what was staged. Every rank must call this; it may be called on any thread.

        Args:
            sums: take checksums of what was written.
        Returns:
            name -> SHA-256 of the files that all ranks have written.
        Raises:
            CheckpointError: a rank could not write.
        """
        with self._lock:
            staged, self._staged = self._staged, {}
            write_pieces(folder, staged, group=self._group)
            del staged
            return self._digests(folder) if sums else {}

    def _digests(self, folder: Path) -> dict[str, str]:
        rank = 0 if self._group is None else dist.get_rank(self._group)
        mine = [file.name for file in folder.glob(f"__{rank}_*")] + ([".metadata"] if rank == 0 else [])
        try:
            found = digests(folder, mine)
        except OSError as error:
            found = {"": str(error)}
        rows = [found] if self._group is None else all_gather_json(found, group=self._group)
        problem = next((row[""] for row in rows if "" in row), None)
        if problem is not None:
            raise CheckpointError(f"a rank's part of {folder} cannot be read again ({problem})")
        return {name: value for row in rows for name, value in row.items()}
