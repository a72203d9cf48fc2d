"""Torch's distributed checkpoint format (DCP), Meta's or ours: its weights read and written one at a time."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata

from ...errors import CheckpointError
from .dcp_index import IndexReader, TensorPlanner, read_index
from .names import Naming
from .sources import Block
from .writers import Weight

DCP_PREFIX = "model."  # both Meta's files and ours hold {"model": {name: weight}}


class DCPSource:
    """A folder of torch's distributed checkpoint format, Meta's or ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = metadata = read_index(folder)
        kept = {
            name.removeprefix(DCP_PREFIX): value
            for name, value in metadata.state_dict_metadata.items()
            if name.startswith(DCP_PREFIX) and isinstance(value, TensorStorageMetadata)
        }
        self._check_files(metadata)
        self.shapes = {name: tuple(value.size) for name, value in kept.items()}
        self.dtypes = {name: value.properties.dtype for name, value in kept.items()}
        self.naming: Naming = "meta" if "tok_embeddings.weight" in kept else "hf"

    def read(self, name: str, block: Block | None = None) -> Tensor:
        state: dict[str, Any] = {DCP_PREFIX + name: torch.empty(self.shapes[name], dtype=self.dtypes[name])}
        try:
            with one_process():
                reader = IndexReader(self.folder, self._index)
                dcp.load(state, storage_reader=reader, planner=TensorPlanner(), no_dist=True)
        except (OSError, RuntimeError, CheckpointException) as error:
            raise CheckpointError(
                f"{self.folder}: {name} cannot be read ({error}); copy the checkpoint anew"
            ) from error
        weight = state[DCP_PREFIX + name]
        return weight if block is None else weight[block].clone()

    def _check_files(self, metadata: Any) -> None:
        """Every stored piece lies within its file; a cut file shows before any is read."""
        ends: dict[str, int] = {}
        for info in (metadata.storage_data or {}).values():
            ends[info.relative_path] = max(ends.get(info.relative_path, 0), info.offset + info.length)
        for name, end in ends.items():
            file = self.folder / name
            size = file.stat().st_size if file.is_file() else -1
            if size < end:
                state = "is missing" if size < 0 else f"has {size} bytes of {end}"
                raise CheckpointError(f"{file} cannot be read (it {state}); copy the checkpoint anew")


def write_dcp(folder: Path, weights: list[Weight]) -> None:
    """Write torch's distributed format, ``{"model": {name: weight}}``. One weight is held at a time.

    Raises:
        OSError: it could not be written.
    """
    state = {"model": {one.name: torch.empty(one.shape, dtype=one.dtype, device="meta") for one in weights}}
    planner = _LazyPlanner({f"model.{one.name}": one for one in weights})
    writer = dcp.FileSystemWriter(folder, single_file_per_rank=False, thread_count=1)
    try:
        with one_process():
            dcp.save(state, storage_writer=writer, planner=planner, no_dist=True)
    except CheckpointException as error:
        raise OSError(str(error)) from error


class _LazyPlanner(DefaultSavePlanner):
    """Plans with weights of the meta device and makes each one when it is written."""

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        super().__init__()
        self._weights = weights

    def lookup_object(self, index: MetadataIndex) -> Any:
        return self._weights[index.fqn].make().contiguous()


@contextmanager
def one_process() -> Iterator[None]:
    """Torch warns on every distributed checkpoint of one process that it is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        yield
