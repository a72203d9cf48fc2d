"""The index of torch's distributed checkpoint format, ``.metadata``, read without running what it says.

The file is a pickle, and a pickle is a program: torch's own reader would run whatever somebody put there. Here each
class and function it may name is replaced by a record that only keeps what it is given; any other name is refused. What
the records hold is checked and made into torch's classes by us.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from ...errors import CheckpointError
from .sources import DCP_METADATA

T = TypeVar("T")

_MODULES = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix"},
    # where torch before 2.3 had them
    "torch.distributed._shard.sharded_tensor.metadata": {"TensorProperties", "MEM_FORMAT_ENCODING"},
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"},
}
"""What an index that torch wrote may name; none of it is looked up."""

_DTYPES = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


def read_index(folder: Path) -> Metadata:
    """The index of a folder in torch's distributed format.

    Raises:
        CheckpointError: it cannot be read, names what no index needs, or says what no index says.
    """
    file = folder / DCP_METADATA
    try:
        with file.open("rb") as opened:
            found = _Records(opened).load()
        return _metadata(found)
    except CheckpointError as error:
        raise CheckpointError(f"{file} {error}; take the checkpoint from a source that you trust") from None
    except MemoryError:
        raise CheckpointError(f"{file} asks for more memory than there is; copy the checkpoint anew") from None
    except Exception as error:  # a broken pickle can fail as any class of exception
        raise CheckpointError(f"{file} cannot be read ({error}); copy the checkpoint anew") from error


class IndexReader(dcp.FileSystemReader):
    """torch's reader, over an index that was read here. What torch would unpickle of the index is not read again."""

    def __init__(self, folder: Path, index: Metadata | None = None) -> None:
        """
        Args:
            index: of the folder, where it has been read already.
        """
        super().__init__(folder)
        self._index = index or read_index(folder)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._index


class TensorPlanner(DefaultLoadPlanner):
    """Loads tensors alone: whatever else a checkpoint holds is pickled, and torch would run it."""

    def load_bytes(self, read_item: Any, value: Any) -> None:
        raise CheckpointError(f"{read_item.dest_index.fqn} is a pickled object; a tensor is expected")


class _Record:
    """What a pickle says of an object: what it was made of, and what state it was given."""

    arguments: tuple[Any, ...]
    state: Any = None

    def __new__(cls, *arguments: Any) -> "_Record":
        self = super().__new__(cls)
        self.arguments = arguments
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Records(pickle.Unpickler):
    """Knows no class but records of its own, made for this one reading, so that nothing outlives it."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._kinds: dict[str, type[_Record]] = {}

    def find_class(self, module_name: str, global_name: str) -> Any:
        if module_name == "torch" and global_name in _DTYPES:
            return _DTYPES[global_name]
        if global_name not in _MODULES.get(module_name, ()):
            raise CheckpointError(f"asks for {module_name}.{global_name}, which no index of weights has a use for")
        if global_name == "OrderedDict":
            return dict
        kind = self._kinds.get(global_name)
        if kind is None:
            kind = self._kinds[global_name] = type(global_name, (_Record,), {})
        return kind

    def persistent_load(self, pid: Any) -> Any:
        raise CheckpointError("refers to something outside")


def _metadata(found: Any) -> Metadata:
    fields = _fields(found, "Metadata")
    entries = _typed(fields.get("state_dict_metadata"), dict)
    places = _typed(fields.get("storage_data") or {}, dict)
    return Metadata(
        state_dict_metadata={_typed(name, str): _entry(value) for name, value in entries.items()},
        storage_data={_index(key): _place(value) for key, value in places.items()},
        storage_meta=StorageMeta(),
    )


def _entry(found: Any) -> TensorStorageMetadata | BytesStorageMetadata:
    if _kind(found) == "BytesStorageMetadata":
        return BytesStorageMetadata()
    fields = _fields(found, "TensorStorageMetadata")
    dtype = _properties(fields["properties"])
    return TensorStorageMetadata(
        properties=TensorProperties(dtype=dtype),
        size=_size(fields["size"]),
        chunks=[_chunk(one) for one in _typed(fields["chunks"], list)],
    )


def _properties(found: Any) -> torch.dtype:
    """The dtype; the other properties are deprecated and not read."""
    if _kind(found) != "TensorProperties":
        raise CheckpointError(f"has a {_kind(found)} for the properties of a tensor")
    state = found.state
    return _typed(state["dtype"] if isinstance(state, dict) else _typed(state, tuple)[0], torch.dtype)


def _chunk(found: Any) -> ChunkStorageMetadata:
    fields = _fields(found, "ChunkStorageMetadata")
    return ChunkStorageMetadata(offsets=_size(fields["offsets"]), sizes=_size(fields["sizes"]))


def _index(found: Any) -> MetadataIndex:
    fields = _fields(found, "MetadataIndex")
    offset, index = fields.get("offset"), fields.get("index")
    return MetadataIndex(
        fqn=_typed(fields["fqn"], str),
        offset=None if offset is None else _size(offset),
        index=None if index is None else _typed(index, int),
    )


def _place(found: Any) -> _StorageInfo:
    """Where a piece lies. A name that leads out of the folder would put any file of this machine into the weights."""
    fields = _fields(found, "_StorageInfo")
    name = _typed(fields["relative_path"], str)
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or "\\" in name or not place.parts:
        raise CheckpointError(f"names a file outside its folder, {name!r}")
    offset, length = _typed(fields["offset"], int), _typed(fields["length"], int)
    if offset < 0 or length < 0:
        raise CheckpointError(f"has a piece of {length} bytes at {offset}")
    if fields.get("transform_descriptors"):
        raise CheckpointError(f"has pieces that are packed ({fields['transform_descriptors']!r})")
    return _StorageInfo(relative_path=name, offset=offset, length=length)


def _size(found: Any) -> torch.Size:
    if _kind(found) != "Size":
        raise CheckpointError(f"has a {_kind(found)} for a size")
    numbers = [_typed(one, int) for one in _typed(found.arguments[0], tuple)]
    if any(number < 0 for number in numbers):
        raise CheckpointError(f"has a size of {numbers}")
    return torch.Size(numbers)


def _fields(found: Any, kind: str) -> Mapping[str, Any]:
    if _kind(found) != kind:
        raise CheckpointError(f"has a {_kind(found)} where {kind} is expected")
    return _typed(found.state or {}, dict)


def _kind(found: Any) -> str:
    return type(found).__name__


def _typed(value: Any, kind: type[T]) -> T:
    if type(value) is not kind:
        raise CheckpointError(f"has a {_kind(value)} where a {kind.__name__} is expected")
    return value
