"""Attention of paged sequences by the kernels: decoding reads the pages in place, prefill gathers them once a layer."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..attention import Documents, attend
from ..kernels.decode import paged_decode
from .cache import KeyValuePages
from .plans import Pieces


class PagedPrefill:
    """Attention of new tokens of several rows, laid end to end, each after what its row holds."""

    def __init__(
        self, pages: KeyValuePages, tables: Sequence[np.ndarray], pieces: Pieces, places: Sequence[Tensor]
    ) -> None:
        """
        Args:
            tables: of each group [pieces, blocks], pages of each row.
            places: of the new tokens in the pages.
        """
        self._pages, self._places = pages, places
        device = pages.kv[0].device
        self._queries = Documents.from_lengths([count for _, _, count in pieces], device=device)
        # Of each group: the documents of the keys, and each key's page and place in it.
        self._keys: list[tuple[Documents, Tensor, Tensor]] = []
        for group, table in zip(pages.groups, tables, strict=True):
            lengths, held, offsets = [], [], []
            for pages_of_row, (_, start, count) in zip(table, pieces, strict=True):
                oldest = 0 if group.window is None else max(0, start - group.window + 1)
                places_of_row = np.arange(oldest, start + count)
                lengths.append(len(places_of_row))
                held.append(pages_of_row[places_of_row // pages.page_size])
                offsets.append(places_of_row % pages.page_size)
            held, offsets = (torch.from_numpy(np.concatenate(part)).to(device) for part in (held, offsets))
            self._keys.append((Documents.from_lengths(lengths, device=device), held, offsets))

    def attend(self, layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
        """Keep the new keys and values and attend to all the row holds, in one launch. Returns [T, H, K]."""
        self._pages.write(layer, self._places, k_TGK, v_TGK)
        group, index = self._pages.where[layer]
        documents, held, offsets = self._keys[group]
        k, v = (side[held, :, offsets] for side in self._pages.kv[group][:, index])
        return attend(q_THK, k, v, self._queries, window, keys=documents)


class PagedDecode:
    """Attention of one new token in each of some rows."""

    def __init__(
        self,
        pages: KeyValuePages,
        tables: Sequence[Tensor],
        lengths: Tensor,
        longest: int,
        places: Sequence[Tensor],
    ) -> None:
        """
        Args:
            tables: of each group [R, blocks] int32, pages of each row.
            lengths: [R] int32, tokens of each row, the new one included.
            longest: at least the largest of them.
            places: of the new tokens in the pages.
        """
        self._pages, self._tables, self._lengths, self._longest = pages, tables, lengths, longest
        self._places = places

    def attend(self, layer: int, q_RHK: Tensor, k_RGK: Tensor, v_RGK: Tensor, window: int | None) -> Tensor:
        """Keep the new keys and values and attend to all the row holds. Returns [R, H, K]."""
        self._pages.write(layer, self._places, k_RGK, v_RGK)
        group, index = self._pages.where[layer]
        k, v = (side.transpose(1, 2) for side in self._pages.kv[group][:, index])
        scale = self._pages.head_dim**-0.5
        out, _ = paged_decode(q_RHK, k, v, self._tables[group], self._lengths, self._longest, window or 0, scale)
        return out
