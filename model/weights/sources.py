"""Checkpoints on disk, one weight at a time: Hugging Face's safetensors and torch's distributed format (DCP)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ..config import DecoderConfig
from ..families.find import eos_token_ids, read_config
from .meta_config import config_from_meta
from .names import Naming, Part, deinterleave, parts

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DCP_METADATA = ".metadata"
"""The file by which a folder of torch's distributed format is known."""
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
_DERIVED = ".rotary_emb.inv_freq"  # that old files hold, and everyone computes
Block = tuple[slice, ...]


class Source(Protocol):
    """The weights of a checkpoint.

    Attributes:
        folder: where it lies.
        naming: whose names it has.
        shapes: of every weight, by name.
        dtypes: of every weight, by name.
    """

    folder: Path
    naming: Naming
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, torch.dtype]

    def read(self, name: str, block: Block | None = None) -> Tensor:
        """One weight, or a block of its rows and columns. Raises CheckpointError where it cannot be read."""
        ...


def open_source(path: Path | str) -> tuple[DecoderConfig, Source]:
    """Open a checkpoint and compare its names and shapes with its configuration; no weight is read yet.

    Raises:
        CheckpointError: nothing there, files missing or cut, a weight missing, too many, or of another shape.
    """
    folder = Path(path)
    config = load_config(folder)
    source = source_of(folder)
    _compare(source, config)
    _compare_tied(source, config)
    return config, source


def source_of(folder: Path) -> Source:
    """The weights in a folder, of any model. Raises CheckpointError: files are missing or cut."""
    if not (folder / DCP_METADATA).is_file():
        return HFSource(folder)
    from .dcp import DCPSource  # torch's distributed checkpoints import sympy, a second of every process

    return DCPSource(folder)


def load_config(path: Path | str) -> DecoderConfig:
    """Read the configuration of a checkpoint: config.json, or Meta's params.json; what ends a text, from
    generation_config.json where there is one. Raises CheckpointError."""
    folder = Path(path)
    file, read = folder / "config.json", read_config
    if not file.is_file() and (folder / "params.json").is_file():
        file, read = folder / "params.json", config_from_meta
    if not file.is_file():
        raise CheckpointError(f"there is no checkpoint at {path} (no config.json); check the path")
    try:
        config = read(json.loads(file.read_text(encoding="utf-8")))
        # A model may end its turns with tokens that only its settings of generation name.
        return replace(config, eos_token_ids=eos_token_ids(folder) or config.eos_token_ids)
    except ConfigError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be loaded: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON ({error}); copy the checkpoint anew") from error


def read_part(source: Source, part: Part, head_dim: int, block: Block | None = None) -> Tensor:
    """One weight in Hugging Face's order of rows, or a block of it; rows of an interleaved one must be whole heads.

    Raises:
        CheckpointError: it cannot be read, or holds NaN or infinity.
    """
    name = part.name(source.naming)
    weight = source.read(name, block)
    if not bool(weight.isfinite().all()):
        raise CheckpointError(f"{source.folder}: {name} holds NaN or infinity; take an earlier checkpoint")
    return deinterleave(weight, head_dim) if source.naming == "meta" and part.interleaved else weight


class HFSource:
    """A folder of safetensors files."""

    naming: Naming = "hf"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file_of: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        for file in _weight_files(folder):
            # Opening checks that the file is as long as its header says: a cut shard shows before any is read.
            with _opened(file) as opened:
                for name in opened.keys():  # noqa: SIM118 (safe_open is no mapping)
                    part = opened.get_slice(name)
                    self._file_of[name] = file
                    self.shapes[name] = tuple(part.get_shape())
                    self.dtypes[name] = _dtype(file, name, part.get_dtype())

    def read(self, name: str, block: Block | None = None) -> Tensor:
        with _opened(self._file_of[name]) as opened:
            return opened.get_tensor(name) if block is None else opened.get_slice(name)[block]


def _compare(source: Source, config: DecoderConfig) -> None:
    expected = {part.name(source.naming): part.shape for part in parts(config)}
    for name, shape in source.shapes.items():
        if name.endswith(_DERIVED) or (name == HEAD and config.tied_embeddings):
            continue
        if name not in expected:
            raise CheckpointError(
                f"{source.folder} holds {name}, which config.json has no place for; check num_hidden_layers"
            )
        if shape != expected[name]:
            raise CheckpointError(
                f"{source.folder}: {name} has shape {list(shape)}, but config.json asks for {list(expected[name])}"
            )
    missing = [name for name in expected if name not in source.shapes]
    if missing == [HEAD]:
        raise CheckpointError(
            f"{source.folder} lacks the tensor {HEAD}, and its config.json says that it has one "
            "(tie_word_embeddings is false); copy it anew, or set the flag where head and embeddings are one matrix"
        )
    if missing:
        raise CheckpointError(f"{source.folder} lacks the tensor {missing[0]} ({len(missing)} in all); copy it anew")


def _compare_tied(source: Source, config: DecoderConfig) -> None:
    """Where one matrix is embedding and head, files may hold it twice; two that differ are not one."""
    if not config.tied_embeddings or HEAD not in source.shapes:
        return
    if not torch.equal(source.read(HEAD), source.read(EMBEDDING)):
        raise CheckpointError(
            f"{source.folder}: config.json says tie_word_embeddings, but {HEAD} is not {EMBEDDING}; "
            "set tie_word_embeddings to false"
        )


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX).is_file():
        try:
            names = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()
            return sorted({folder / _inside(folder / INDEX, name) for name in names})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{folder / INDEX} is no index of weights ({error}); copy it anew") from error
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"there is no {WEIGHTS} in {folder}; copy the checkpoint anew")
    return [folder / WEIGHTS]


def _inside(index: Path, name: str) -> str:
    """A file's name that leads nowhere else. Raises CheckpointError."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise CheckpointError(f"{index} names a file outside its folder, {name!r}; check where it comes from")
    return name


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as opened:
            yield opened
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}); copy the checkpoint anew") from error


def _dtype(file: Path, name: str, dtype: str) -> torch.dtype:
    if dtype not in _DTYPES:
        raise CheckpointError(f"{file}: {name} is of {dtype}; only {', '.join(_DTYPES)} can be loaded")
    return _DTYPES[dtype]


_DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "F64": torch.float64,
}
