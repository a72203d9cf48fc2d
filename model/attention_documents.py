"""Where the documents of a pack lie, and what attention derives from that once for all layers."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .kernels.attention import Blocks, tile_table
from .kernels.tree import tree_tables


class Documents:
    """Where the documents of a pack lie. Built once per pack and shared by all layers.

    Attributes:
        lengths: tokens of each document; 0 is allowed.
        positions: [T] int64, position of each token in its document.
        cu_seqlens: [N + 1] int32, where each document starts, and T.
    """

    def __init__(self, lengths: Sequence[int], positions: Tensor) -> None:
        self.lengths = list(lengths)
        self.positions = positions
        self._made: dict[tuple[str, int], Tensor] = {}

    @classmethod
    def from_lengths(
        cls, lengths: Sequence[int], *, starts: Sequence[int] | None = None, device: torch.device | str = "cpu"
    ) -> "Documents":
        """Documents laid end to end.

        Args:
            lengths: tokens of each document in the pack.
            starts: position of each document's first token here; 0 where nothing of it came before.
        """
        if min(lengths, default=0) < 0:
            raise ValueError(f"a document has length {min(lengths)}; lengths must not be negative")
        starts = starts or [0] * len(lengths)
        runs = [torch.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
        positions = torch.cat(runs) if runs else torch.arange(0)
        return cls(lengths, positions.to(device))

    @property
    def num_tokens(self) -> int:
        return self.positions.shape[0]

    @property
    def longest(self) -> int:
        """Tokens of the longest document, what it shares included."""
        return max(self.lengths, default=0)

    @property
    def cu_seqlens(self) -> Tensor:
        return self._once("bounds", 0, lambda: [0, *accumulate(self.lengths)])

    def tiles(self, rows: int, *, of: Literal["queries", "keys"]) -> Tensor:
        """[tiles, 2] int32, (document, first row) of the tiles of ``rows`` rows that kernels work on."""
        made = self._once(of, rows, lambda: tile_table(self.lengths, rows, heaviest_last_rows=of == "queries"))
        return made.view(-1, 2)

    def _once(self, name: str, size: int, make: Callable[[], list]) -> Tensor:
        if (name, size) not in self._made:
            self._made[name, size] = torch.tensor(make(), dtype=torch.int32, device=self.positions.device)
        return self._made[name, size]

    def band(self, window: int) -> Tensor:
        """What a block of ``window`` queries sees of its own block and the one before it.

        Returns:
            [ceil(T / W), 1, W, 2 W] bool, True where query and key are of one document and within the window.
        """
        if ("band", window) not in self._made:
            self._made["band", window] = _band(self.lengths, window, self.positions.device)
        return self._made["band", window]


class SharedDocuments(Documents):
    """Documents whose beginnings are shared: each has the tokens that the one before it has not, and sees those before
    them wherever they lie.

    Attributes:
        paths: of each document, [L] int64: where all of its tokens lie, its own at the end. Documents are in
            depth-first order: what two of them share is shared by all between them.
    """

    def __init__(self, lengths: Sequence[int], positions: Tensor, paths: Sequence[Tensor]) -> None:
        super().__init__(lengths, positions)
        self.paths = list(paths)
        self._trees: dict[tuple[Blocks, int], tuple[Tensor, Tensor, Tensor, Tensor]] = {}

    @classmethod
    def from_paths(cls, paths: Sequence[Tensor], lengths: Sequence[int]) -> "SharedDocuments":
        """
        Args:
            paths: as the attribute.
            lengths: how many tokens at the end of each path are its document's own; they lie end to end.
        """
        runs = [torch.arange(len(path) - own, len(path)) for path, own in zip(paths, lengths, strict=True)]
        return cls(lengths, torch.cat(runs).to(paths[0].device), paths)

    @property
    def longest(self) -> int:
        return max(map(len, self.paths), default=0)

    @property
    def ends(self) -> Tensor:
        """[T] int32, where the documents that a token is of end: behind its last descendant."""
        return self._once("ends", 0, lambda: self._ends().tolist())

    @property
    def depths(self) -> Tensor:
        """[T] int32, the positions."""
        return self._once("depths", 0, lambda: self.positions.tolist())

    def tree(self, blocks: Blocks, window: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``kernels.tree.tree_tables``: tiles of queries, their blocks, tiles of keys, their blocks."""
        if (blocks, window) not in self._trees:
            by_queries, by_keys = tree_tables(self._ends(), self.positions.cpu().numpy(), window, blocks)
            tiles, met, key_tiles, key_met = (
                torch.from_numpy(part).to(self.positions.device) for part in (*by_queries, *by_keys)
            )
            self._trees[blocks, window] = tiles, met, key_tiles, key_met
        return self._trees[blocks, window]

    def _ends(self) -> np.ndarray:
        ends, count = np.zeros(self.num_tokens, np.int64), 0
        for path, own in zip(self.paths, self.lengths, strict=True):
            count += own
            ends[path.cpu().numpy()] = count
        return ends


def _band(lengths: Sequence[int], window: int, device: torch.device) -> Tensor:
    num_tokens = sum(lengths)
    count = -(-num_tokens // window)
    document = torch.full(((count + 1) * window,), -1, device=device)  # -1: before and after the pack
    document[window : window + num_tokens] = torch.repeat_interleave(torch.tensor(lengths, device=device))
    block = document.view(count + 1, window)
    keys = torch.cat((block[:-1], block[1:]), dim=1)
    same = block[1:, :, None] == keys[:, None, :]
    distance = torch.arange(window, device=device)[:, None] + window - torch.arange(2 * window, device=device)
    return (same & (distance >= 0) & (distance < window))[:, None]
