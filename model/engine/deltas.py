"""An engine's weights brought up by what has changed, over any number of publishes that it has missed."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...errors import CheckpointError
from ..checkpoint import hf_views
from ..decoder import Decoder
from ..parallel.objects import all_gather_json
from ..weights.delta import Block, Published, added, bits_of, decoded, read_blocks, sum_of

_ID = "published_id"
"""Attribute of a decoder: the id of the published weights that it has."""


def forget(decoder: Decoder) -> None:
    """A decoder has got weights that nobody has published."""
    setattr(decoder, _ID, None)


def published_id(decoder: Decoder) -> str | None:
    """Of the weights that a decoder has; None where nobody has published them."""
    return getattr(decoder, _ID, None)


def bring(folder: Path, decoder: Decoder, load: Callable[[Path, Decoder], None]) -> None:
    """Give a decoder the weights that a folder has published.

    What it has missed is read from the folders beside it: from the whole weights on, or from those that it has. The
    sums of all tensors are compared with the publisher's at the end. Every rank of a split decoder must call this.

    Args:
        load: reads whole weights from a folder.
    Raises:
        CheckpointError: something is missing, broken, or the sums differ. Differences that were added are taken away
            again then.
    """
    chain = _chain(folder, published_id(decoder))
    whole = chain[0][1].base is None
    if whole:
        load(chain[0][0], decoder)
        setattr(decoder, _ID, chain[0][1].id)
    parts = dict(_parts(decoder))
    done: list[Path] = []
    dtype = getattr(torch, chain[-1][1].dtype)
    problem = None
    try:
        for place, _ in chain[1:] if whole else chain:
            done.append(place)
            _add(place, parts, dtype, 1)
    except CheckpointError as error:
        problem = str(error)
    together = _is_split(decoder)
    # Every rank takes its sums, also one with a problem: the others wait for them.
    differs = _differs(parts, chain[-1][1], dtype, together=together)
    problem = _first([problem, differs], together=together)
    if problem is not None:
        for place in reversed(done):
            _add(place, parts, dtype, -1, strict=False)
        raise CheckpointError(problem)
    setattr(decoder, _ID, chain[-1][1].id)


def _chain(folder: Path, has: str | None) -> list[tuple[Path, Published]]:
    """The folders to read, the first to be read first: it is whole, or of what comes after the weights of that id."""
    found: list[tuple[Path, Published]] = []
    while True:
        told = Published.read(folder)
        if told is None:
            raise CheckpointError(f"{folder} does not say what it has published; publish the weights whole")
        found.append((folder, told))
        if told.base is None or told.base == has:
            return found[::-1]
        assert told.previous is not None, "a delta names the folder of its base"
        folder = folder.parent / Path(told.previous).name


def _parts(decoder: Decoder) -> Iterator[tuple[str, tuple[Tensor, Block]]]:
    """name -> (this process's part of a weight, where that lies in it)."""
    if not _is_split(decoder):
        for name, view in hf_views(decoder).items():
            yield name, (view.detach(), Block.of(tuple(view.shape), None))
        return
    from torch.distributed.tensor import DTensor

    from ..parallel.checkpoint import block_of
    from ..parallel.views import views

    for name, view in views(decoder):
        local = view.to_local() if isinstance(view, DTensor) else view
        if local.numel():
            yield name, (local.detach(), Block.of(tuple(view.shape), block_of(view)))


def _is_split(decoder: Decoder) -> bool:
    """Whether its weights are DTensors, of which every rank has a part."""
    return any(hasattr(parameter, "placements") for parameter in decoder.parameters())


@torch.no_grad()
def _add(
    folder: Path, parts: Mapping[str, tuple[Tensor, Block]], dtype: torch.dtype, sign: int, *, strict: bool = True
) -> None:
    try:
        for name, block, found in read_blocks(folder):
            if name in parts:
                _add_block(*parts[name], block, found, dtype, sign)
    except CheckpointError:
        if strict:
            raise


def _add_block(
    value: Tensor, mine: Block, block: Block, found: Mapping[str, Tensor], dtype: torch.dtype, sign: int
) -> None:
    """Add what lies in both blocks: the publisher's ``block`` and ``mine``."""
    places, changes = decoded(found, dtype)
    rows = torch.div(places, block.columns, rounding_mode="floor")
    columns = places - rows * block.columns + block.column - mine.column
    rows = rows + block.row - mine.row
    inside = (rows >= 0) & (rows < mine.rows) & (columns >= 0) & (columns < mine.columns)
    at = (rows[inside].to(value.device), columns[inside].to(value.device))
    at = at[:1] if value.dim() == 1 else at
    # The engine may compute in more than was published; its numbers are those of the published dtype all the same.
    before = value[at].to(dtype).contiguous()
    after = bits_of(before) + sign * changes[inside].to(value.device)
    value[at] = after.to(bits_of(before).dtype).view(dtype).to(value.dtype)


def _differs(
    parts: Mapping[str, tuple[Tensor, Block]], told: Published, dtype: torch.dtype, *, together: bool
) -> str | None:
    """Which tensor is not the publisher's, in words; all ranks say the same."""
    mine = {
        name: [sum_of(value.to(dtype).contiguous(), block), *_place(block)] for name, (value, block) in parts.items()
    }
    rows = all_gather_json(mine) if together else [mine]
    for name, expected in told.sums.items():
        blocks = {tuple(row[name][1:]): row[name][0] for row in rows if name in row}
        if added(list(blocks.values())) != expected:
            return f"{name} is not what was published: its sum differs. Publish the weights whole"
    return None


def _place(block: Block) -> tuple[int, int, int, int]:
    return block.row, block.column, block.rows, block.columns


def _first(problems: list[str | None], *, together: bool) -> str | None:
    mine = next((one for one in problems if one is not None), None)
    return next((one for one in all_gather_json(mine) if one is not None), None) if together else mine
