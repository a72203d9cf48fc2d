"""What one forward of the engine is told: plain arrays, so that other processes can be told the same. Free of torch.

Shapes: T tokens of a prefill, R rows (sequences), N draws. A slot is page x C + place in the page, C tokens a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Pieces = Sequence[tuple[int, int, int]]
"""(row, tokens it holds already, new tokens) of each sequence, in the order of the pack."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPlan:
    """New tokens of several rows, laid end to end, each after what its row holds.

    Attributes:
        pieces: of the pack.
        fed, positions: [T] int64, tokens and where they stand.
        slots: of each group of layers [T] int64, where their keys and values go.
        tables: of each group [pieces, blocks] int64, the rows' pages.
        drawn: [N] int64, places in the pack of the tokens after which one is drawn.
    """

    pieces: Pieces
    fed: np.ndarray
    positions: np.ndarray
    slots: list[np.ndarray]
    tables: list[np.ndarray]
    drawn: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePlan:
    """One new token of each of some rows.

    Attributes:
        fed, positions: [R] int64, tokens and where they stand.
        slots: of each group [R] int64, where their keys and values go; the scratch page's for rows without a sequence.
        tables: of each group [R, blocks] int64, the rows' pages; empty where lanes are read instead.
        drawn: [N] int64, ascending: the rows that count.
    """

    fed: np.ndarray
    positions: np.ndarray
    slots: list[np.ndarray]
    tables: list[np.ndarray]
    drawn: np.ndarray
