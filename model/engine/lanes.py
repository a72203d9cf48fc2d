"""Attention of paged sequences where no kernel reads pages: each row's keys and values also lie end to end in a lane.

Gathering the pages of every row for every layer and token would cost more than attention itself. A lane is filled from
the pages when its sequence begins and gets each new token with them; global layers keep the sequence in order, sliding
layers a ring of the window: the token at place p in slot p mod W. Lanes are a copy, the pages are what counts. They are
as long as the longest sequence so far has been, not as the context: most models' contexts are never filled.

Shapes as in ``cache``; N tokens of capacity.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .cache import KeyValuePages
from .plans import Pieces

_FIRST_LENGTH = 512


class Lanes:
    """Storage.

    Attributes:
        sizes: of each group, the slots after which a lane begins anew: N, or W where that is less.
        kv: of each group [2, its layers, R, G, slots so far, K]; keys, then values.
    """

    def __init__(self, pages: KeyValuePages, num_rows: int, capacity: int) -> None:
        self.pages = pages
        self.sizes = [min(group.window or capacity, capacity) for group in pages.groups]
        self.kv = [
            kv.new_zeros(2, len(group.layers), num_rows, pages.num_heads, 0, pages.head_dim)
            for group, kv in zip(pages.groups, pages.kv, strict=True)
        ]
        self._length = 0
        self.reserve(_FIRST_LENGTH)

    def reserve(self, length: int) -> None:
        """Have slots for sequences of ``length`` tokens. They double, so that what is kept is seldom copied."""
        if length <= self._length:
            return
        self._length = max(length, 2 * self._length)
        for index, (kv, size) in enumerate(zip(self.kv, self.sizes, strict=True)):
            slots = kv.shape[4]
            if slots < size:
                self.kv[index] = kv.new_zeros(*kv.shape[:4], min(size, self._length), kv.shape[5])
                self.kv[index][..., :slots, :] = kv
        # Of each layer, its keys' and its values' lanes [R, G, slots so far, K].
        self.sides = {layer: tuple(self.kv[g][:, i]) for layer, (g, i) in self.pages.where.items()}

    def clear(self) -> None:
        for kv in self.kv:
            kv.zero_()

    def load(self, row: int, tables: Sequence[np.ndarray], length: int) -> None:
        """Fill a row's lane with the ``length`` tokens that its pages hold, [blocks] of each group."""
        self.reserve(length)
        size = self.pages.page_size
        for index, (kv, group, table) in enumerate(zip(self.kv, self.pages.groups, tables, strict=True)):
            oldest = 0 if group.window is None else max(0, length - group.window + 1)
            if oldest == length:
                continue
            first = oldest // size
            held = self.pages.read(index, table[first:])
            seen = held[..., oldest - first * size : length - first * size, :]
            slots = torch.arange(oldest, length, device=kv.device) % self.sizes[index]
            kv[:, :, row].index_copy_(3, slots, seen)

    def move(self, source: int, target: int, length: int) -> None:
        for kv in self.kv:
            count = min(length, kv.shape[4])
            kv[:, :, target, :, :count] = kv[:, :, source, :, :count]


class LanePrefill:
    """Attention of new tokens of several rows, laid end to end, each after what its row holds."""

    def __init__(self, lanes: Lanes, pieces: Pieces, places: Sequence[Tensor]) -> None:
        """
        Args:
            places: of the new tokens in the pages.
        """
        self._lanes, self._pieces, self._places = lanes, pieces, places
        self._lengths = [count for _, _, count in pieces]
        lanes.reserve(max(start + count for _, start, count in pieces))
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}

    def attend(self, layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
        """Keep the new keys and values and attend to all the row holds. Returns [T, H, K]."""
        self._lanes.pages.write(layer, self._places, k_TGK, v_TGK)
        group, index = self._lanes.pages.where[layer]
        kv = self._lanes.kv[group][:, index]
        outs = []
        new = zip(*(x.transpose(0, 1).split(self._lengths, dim=1) for x in (q_THK, k_TGK, v_TGK)), strict=True)
        for (row, start, count), (q, *new_kv) in zip(self._pieces, new, strict=True):
            if window is None:
                k, v = kv[:, row, :, : start + count]
                k[:, start:], v[:, start:] = new_kv
            else:
                k, v = self._ring(kv[:, row], self._lanes.sizes[group], start, new_kv, window)
            mask = self._mask(count, k.shape[1], window)
            out = F.scaled_dot_product_attention(
                q[None], k[None], v[None], attn_mask=mask, is_causal=mask is None, enable_gqa=True
            )
            outs.append(out.squeeze(0).transpose(0, 1))
        return torch.cat(outs)

    @staticmethod
    def _ring(ring: Tensor, size: int, start: int, new_kv: list[Tensor], window: int) -> tuple[Tensor, Tensor]:
        """Keys and values that the new tokens see, in order; the ring [2, G, slots, K] gets the last new ones."""
        seen = min(start, window - 1)
        new = torch.stack(new_kv)
        count = new.shape[2]
        held = new
        if seen:
            slots = torch.arange(start - seen, start, device=ring.device) % size
            held = torch.cat((ring.index_select(2, slots), new), dim=2)
        kept = min(count, size)
        slots = torch.arange(start + count - kept, start + count, device=ring.device) % size
        ring.index_copy_(2, slots, new[:, :, count - kept :])
        return held[0], held[1]

    def _mask(self, count: int, total: int, window: int | None) -> Tensor | None:
        """[count, total] bool for the last ``count`` of ``total`` tokens; None where plain causality says it."""
        window = None if window is None or window >= total else window
        if count == total and window is None:
            return None
        key = (count, total, window)
        if key not in self._masks:
            index = torch.arange(total, device=self._places[0].device)
            distance = index[total - count :, None] - index
            self._masks[key] = (distance >= 0) & (distance < (window or total + 1))
        return self._masks[key]


class LaneDecode:
    """Attention of one new token in each of the first R rows. Its cost follows the longest of them, and in sliding
    layers the window."""

    def __init__(self, lanes: Lanes, positions: np.ndarray, longest: int, places: Sequence[Tensor]) -> None:
        """
        Args:
            positions: [R] where each row's new token stands.
            longest: one more than the largest position that matters; rows beyond it get a meaningless result.
            places: of the new tokens in the pages; the scratch page's for rows that do not count.
        """
        self._lanes, self._places = lanes, places
        lanes.reserve(int(positions.max()) + 1)  # rows that do not count have slots too
        num_rows = len(positions)
        at = torch.from_numpy(positions).to(lanes.kv[0].device)
        heads = torch.arange(num_rows * lanes.pages.num_heads, device=at.device).view(num_rows, -1)
        # Of each group: how many slots of the lanes are looked at, where the new token goes, and what is masked.
        self._spans, self._slots, self._masks = [], [], []
        for kv, size in zip(lanes.kv, lanes.sizes, strict=True):
            span = min(size, longest)
            self._spans.append(span)
            self._slots.append((heads * kv.shape[4] + (at % size)[:, None]).view(-1))
            bias = torch.zeros(num_rows, span, dtype=kv.dtype, device=at.device)
            bias.masked_fill_(torch.arange(span, device=at.device) > at[:, None], float("-inf"))
            self._masks.append(bias[:, None, None])

    def attend(self, layer: int, q_RHK: Tensor, k_RGK: Tensor, v_RGK: Tensor, window: int | None) -> Tensor:
        """Keep the new keys and values and attend to all the row holds. Returns [R, H, K]."""
        num_rows, num_heads, head_dim = q_RHK.shape
        pages = self._lanes.pages
        pages.write(layer, self._places, k_RGK, v_RGK)
        group, _ = pages.where[layer]
        lanes = self._lanes.sides[layer]
        for lane, new in zip(lanes, (k_RGK, v_RGK)):
            lane.view(-1, head_dim).index_copy_(0, self._slots[group], new.reshape(-1, head_dim))
        k, v = (lane[:num_rows, :, : self._spans[group]] for lane in lanes)
        # The J query heads of one key head are the rows of one small matrix product: SDPA on the CPU is slower here.
        q = (q_RHK * head_dim**-0.5).view(num_rows, pages.num_heads, -1, head_dim)
        weights = torch.matmul(q, k.transpose(-1, -2)).add_(self._masks[group]).softmax(dim=-1)
        return torch.matmul(weights, v).view(num_rows, num_heads, head_dim)
