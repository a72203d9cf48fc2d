"""New weights as what has changed: positions and differences of bits, with a sum of each tensor that both sides take.

At a small learning rate few weights in bfloat16 change in a step, and those by one unit in the last place. A folder
holds ``delta.json`` (ids, the sum of every tensor) and a file for each rank that wrote: its blocks of the weights,
under Hugging Face's names. Whoever reads it may have split the weights in any other way.
"""

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ...errors import CheckpointError

DELTA = "delta.json"
PUBLISHED = "published.json"
_FAR = 255
"""A gap that takes more than a byte."""
_LEVEL = 1
_MULTIPLIER = -7046029254386353131  # 2^64 / the golden ratio, odd, as int64
_ROWS = 1 << 22
"""Elements whose sum is taken at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A rectangle of a weight: rows from ``row``, columns from ``column``; of a vector the one column 0. All dimensions
    but the first of one that has more than two are its columns.

    Attributes:
        width: columns of the whole weight.
    """

    row: int
    column: int
    rows: int
    columns: int
    width: int

    @classmethod
    def of(cls, shape: tuple[int, ...], cut: tuple[slice, ...] | None) -> "Block":
        """The block of a weight of that shape that slices cut out; None: all of it."""
        cut = cut or tuple(slice(0, size) for size in shape)
        if len(shape) > 2:
            assert all(part == slice(0, size) for part, size in zip(cut[1:], shape[1:])), "it is cut by rows alone"
            shape = (shape[0], math.prod(shape[1:]))
            cut = (cut[0], slice(0, shape[1]))
        rows, columns = (*cut, slice(0, 1))[:2]
        return cls(
            row=rows.start,
            column=columns.start,
            rows=rows.stop - rows.start,
            columns=columns.stop - columns.start,
            width=shape[1] if len(shape) > 1 else 1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What a folder of published weights says of itself.

    Attributes:
        id: of these weights, like no other's.
        base: id of the weights that the differences are added to; None: the folder has them whole.
        previous: name of the folder beside it that has the base.
        sums: ``sum_of`` of every whole weight, by Hugging Face's name.
        dtype: of the weights.
    """

    id: str
    base: str | None
    previous: str | None
    sums: Mapping[str, int]
    dtype: str

    def write(self, folder: Path) -> None:
        """Say it; a folder is complete with this."""
        name = PUBLISHED if self.base is None else DELTA
        partial = folder / f".{name}.partial"
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        partial.replace(folder / name)

    @classmethod
    def read(cls, folder: Path) -> "Published | None":
        """None of a folder that says nothing. Raises CheckpointError."""
        for name in (DELTA, PUBLISHED):
            try:
                return cls(**json.loads((folder / name).read_text(encoding="utf-8")))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError) as error:
                raise CheckpointError(f"{folder / name} cannot be read ({error}); publish the weights whole") from error
        return None


@torch.no_grad()
def sum_of(value: Tensor, block: Block) -> int:
    """A sum over bits and places, in [-2^63, 2^63): those of the blocks of a weight add up to that of the whole weight
    (modulo 2^64), however it is cut.

    Args:
        value: [rows, columns] or [rows], contiguous, of 2 or 4 bytes an element.
    """
    bits = bits_of(value).reshape(-1)
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    for start in range(0, bits.numel(), _ROWS):
        piece = bits[start : start + _ROWS].to(torch.int64)
        places = torch.arange(start, start + piece.numel(), device=bits.device)
        total += ((piece + 1) * _weight_of(places, block)).sum()
    return int(total)


def added(sums: Iterator[int] | list[int]) -> int:
    """The sum of a weight from those of its blocks."""
    total = sum(sums) & ((1 << 64) - 1)
    return total - (1 << 64) if total >> 63 else total


def bits_of(value: Tensor) -> Tensor:
    """The same memory as integers of the same size."""
    return value.view({2: torch.int16, 4: torch.int32}[value.element_size()])


def _weight_of(places: Tensor, block: Block) -> Tensor:
    """An odd number for each place of the whole weight."""
    rows = torch.div(places, block.columns, rounding_mode="floor")
    whole = (rows + block.row) * block.width + places - rows * block.columns + block.column
    return (whole * _MULTIPLIER) | 1


@torch.no_grad()
def encoded(before: Tensor, now: Tensor) -> dict[str, Tensor]:
    """What has changed in a block: "gaps" and "changes", compressed, as bytes; {} where nothing has.

    Args:
        before, now: of one shape and dtype, contiguous.
    """
    old, new = bits_of(before).reshape(-1), bits_of(now).reshape(-1)
    places = torch.nonzero(old != new).reshape(-1)
    if not places.numel():
        return {}
    changes = (new[places] - old[places]).cpu().numpy()
    gaps = np.diff(places.cpu().numpy(), prepend=-1) - 1
    small = np.minimum(gaps, _FAR).astype(np.uint8)
    far = gaps[gaps >= _FAR].astype("<i8")
    # The sign as the lowest bit, and low and high bytes apart: nearly all differences are small, and a
    # plane of equal bytes is compressed to nothing. Gaps do not repeat themselves: their frequencies are all there is.
    folded = np.where(changes < 0, ~(changes << 1), changes << 1)
    planes = folded.view(np.uint8).reshape(len(changes), -1).T
    frequencies = zlib.compressobj(_LEVEL, strategy=zlib.Z_HUFFMAN_ONLY)
    found = {
        "gaps": frequencies.compress(small.tobytes()) + frequencies.flush(),
        "far": zlib.compress(far.tobytes(), _LEVEL),
        "changes": zlib.compress(np.ascontiguousarray(planes).tobytes(), _LEVEL),
    }
    return {name: _bytes(value) for name, value in found.items()}


def decoded(found: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(places [N] int64 in the flat block, differences [N] of its bits). Raises CheckpointError."""
    try:
        gaps = np.frombuffer(zlib.decompress(found["gaps"].numpy().tobytes()), np.uint8).astype(np.int64)
        far = np.frombuffer(zlib.decompress(found["far"].numpy().tobytes()), "<i8")
        gaps[gaps == _FAR] = far
        size = dtype.itemsize
        planes = np.frombuffer(zlib.decompress(found["changes"].numpy().tobytes()), np.uint8).reshape(size, -1)
        folded = np.ascontiguousarray(planes.T).view({2: "<u2", 4: "<u4"}[size]).reshape(-1)
        changes = ((folded >> 1) ^ -(folded & 1)).view({2: "<i2", 4: "<i4"}[size])
        if len(changes) != len(gaps):
            raise ValueError(f"{len(gaps)} places and {len(changes)} differences")
    except (ValueError, KeyError, zlib.error) as error:
        raise CheckpointError(f"a delta is broken ({error}); publish the weights whole") from error
    return torch.from_numpy(np.cumsum(gaps + 1) - 1), torch.from_numpy(changes.copy())


def write_blocks(folder: Path, rank: int, blocks: Mapping[str, tuple[Block, Mapping[str, Tensor]]]) -> int:
    """Write a rank's blocks that have changed. Returns the bytes of the file. Raises OSError."""
    tensors = {f"{name}/{kind}": value for name, (_, found) in blocks.items() for kind, value in found.items()}
    places = {name: asdict(block) for name, (block, found) in blocks.items() if found}
    file = folder / f"delta-{rank:05d}.safetensors"
    save_file(tensors, file, metadata={"blocks": json.dumps(places)})
    return file.stat().st_size


def read_blocks(folder: Path) -> Iterator[tuple[str, Block, dict[str, Tensor]]]:
    """(name, block, what ``encoded`` made) of all ranks; a block that several have written comes once.

    Raises:
        CheckpointError: a file cannot be read.
    """
    seen: set[tuple[str, Block]] = set()
    for file in sorted(folder.glob("delta-*.safetensors")):
        try:
            with safe_open(file, framework="pt") as opened:
                places: dict[str, Any] = json.loads((opened.metadata() or {})["blocks"])
                for name, place in places.items():
                    block = Block(**place)
                    if (name, block) not in seen:
                        seen.add((name, block))
                        kinds = ("gaps", "far", "changes")
                        yield name, block, {kind: opened.get_tensor(f"{name}/{kind}") for kind in kinds}
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{file} cannot be read ({error}); publish the weights whole") from error


def _bytes(value: bytes) -> Tensor:
    return torch.frombuffer(bytearray(value), dtype=torch.uint8)
