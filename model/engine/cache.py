"""Keys and values in slots: one slot holds one sequence, from position 0 on, for all layers.

Shapes: S slots, R rows of a step, T tokens of a prefill, H query heads, G key/value heads, J = H / G, K channels a
head, C tokens of capacity, W window.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention import Documents, attend
from ..config import DecoderConfig
from ..kernels.decode import paged_decode
from ..kernels.launch import fused


class KeyValueSlots:
    """Storage for the keys and values of ``num_slots`` sequences.

    Attributes:
        kv: [2, layers, S, G, C, K]; keys, then values.
    """

    def __init__(
        self, config: DecoderConfig, num_slots: int, capacity: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (2, config.num_layers, num_slots, config.num_kv_heads, capacity, config.head_dim)
        # Zeros: what was never written is masked, but 0 x NaN would still be NaN.
        self.kv = torch.zeros(shape, dtype=dtype, device=device)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` tokens of one slot to another."""
        self.kv[:, :, target, :, :length] = self.kv[:, :, source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first ``length`` tokens of two slots."""
        kept = self.kv[:, :, one, :, :length].clone()
        self.copy(other, one, length)
        self.kv[:, :, other, :, :length] = kept


class PrefillView:
    """Attention of new tokens of several slots, laid end to end, each after what its slot holds."""

    def __init__(self, slots: KeyValueSlots, pieces: Sequence[tuple[int, int, int]]) -> None:
        """
        Args:
            pieces: (slot, tokens it holds already, new tokens) of each sequence, in the order of the pack.
        """
        self._kv = slots.kv
        self._pieces = pieces
        self._lengths = [count for _, _, count in pieces]
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}
        device = slots.kv.device
        self._queries = Documents.from_lengths(self._lengths, device=device)
        self._keys = Documents.from_lengths([start + count for _, start, count in pieces], device=device)

    def attend(self, layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
        """Keep the new keys and values and attend to all the slot holds. Returns [T, H, K]."""
        if fused(self._kv):
            return self._attend_packed(layer, q_THK, k_TGK, v_TGK, window)
        outs = []
        new = zip(*(x.transpose(0, 1).split(self._lengths, dim=1) for x in (q_THK, k_TGK, v_TGK)), strict=True)
        for (slot, start, count), (q, new_k, new_v) in zip(self._pieces, new, strict=True):
            total = start + count
            k, v = self._kv[0, layer, slot, :, :total], self._kv[1, layer, slot, :, :total]
            k[:, start:], v[:, start:] = new_k, new_v
            mask = self._mask(count, total, window)
            out = F.scaled_dot_product_attention(
                q[None], k[None], v[None], attn_mask=mask, is_causal=mask is None, enable_gqa=True
            )
            outs.append(out.squeeze(0).transpose(0, 1))
        return torch.cat(outs)

    def _attend_packed(self, layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
        """All sequences in one launch of the training kernel."""
        held: tuple[list[Tensor], list[Tensor]] = ([], [])
        for which, new in enumerate((k_TGK, v_TGK)):
            for (slot, start, count), part in zip(self._pieces, new.split(self._lengths), strict=True):
                whole = self._kv[which, layer, slot, :, : start + count].transpose(0, 1)
                whole[start:] = part
                held[which].append(whole)
        keys, values = torch.cat(held[0]), torch.cat(held[1])
        return attend(q_THK, keys, values, self._queries, window, keys=self._keys)

    def _mask(self, count: int, total: int, window: int | None) -> Tensor | None:
        """[count, total] bool for the last ``count`` of ``total`` tokens; None where plain causality says it."""
        window = None if window is None or window >= total else window
        if count == total and window is None:
            return None
        key = (count, total, window)
        if key not in self._masks:
            index = torch.arange(total, device=self._kv.device)
            distance = index[total - count :, None] - index
            self._masks[key] = (distance >= 0) & (distance < (window or total + 1))
        return self._masks[key]


class DecodeView:
    """Attention of one new token in each of the first R slots. Its cost follows the longest of them, and in sliding
    layers the window."""

    def __init__(self, slots: KeyValueSlots, positions: Tensor, longest: int) -> None:
        """
        Args:
            positions: [R] int64, where each slot's new token stands.
            longest: one more than the largest position that matters; rows beyond it get a meaningless result.
        """
        self._kv = slots.kv
        self._positions = positions
        self._longest = longest
        num_rows, device = positions.shape[0], positions.device
        num_heads, capacity = slots.kv.shape[3:5]
        first = torch.arange(num_rows * num_heads, device=device).view(num_rows, num_heads) * capacity
        self._first = first  # [R, G]: where each head of each slot starts, in rows of the flattened cache
        self._new = (first + positions[:, None]).view(-1)
        if fused(slots.kv):
            # The kernel's pages: one a slot, as long as the slot.
            self._pages = torch.arange(num_rows, dtype=torch.int32, device=device)[:, None]
            self._lengths = (positions + 1).clamp(max=longest).int()
        self._mask = _bias(torch.arange(longest, device=device) <= positions[:, None], slots.kv.dtype)
        self._windows: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, q_RHK: Tensor, k_RGK: Tensor, v_RGK: Tensor, window: int | None) -> Tensor:
        """Keep the new keys and values and attend to all the slot holds. Returns [R, H, K]."""
        num_rows, num_heads, head_dim = q_RHK.shape
        num_kv_heads = k_RGK.shape[1]
        flat_k, flat_v = self._kv[0, layer].view(-1, head_dim), self._kv[1, layer].view(-1, head_dim)
        flat_k.index_copy_(0, self._new, k_RGK.reshape(-1, head_dim))
        flat_v.index_copy_(0, self._new, v_RGK.reshape(-1, head_dim))
        if fused(self._kv):
            pages = self._kv[:, layer, :num_rows].transpose(2, 3)
            out, _ = paged_decode(
                *(q_RHK, *pages, self._pages, self._lengths, self._longest, window or 0, head_dim**-0.5)
            )
            return out
        if window is None or window >= self._longest:
            k, v = self._kv[:, layer, :num_rows, :, : self._longest]
            mask = self._mask
        else:
            index, mask = self._window(window)
            shape = (num_rows, num_kv_heads, window, head_dim)
            k, v = flat_k.index_select(0, index).view(shape), flat_v.index_select(0, index).view(shape)
        # The J query heads of one key head are the rows of one small matrix product: SDPA on the CPU is slower here.
        q = (q_RHK * head_dim**-0.5).view(num_rows, num_kv_heads, -1, head_dim)
        weights = torch.matmul(q, k.transpose(-1, -2)).add_(mask).softmax(dim=-1)
        return torch.matmul(weights, v).view(num_rows, num_heads, head_dim)

    def _window(self, window: int) -> tuple[Tensor, Tensor]:
        """(rows of the flattened cache [R x G x W], bias [R, 1, 1, W]) of the last ``window`` tokens."""
        if window not in self._windows:
            back = torch.arange(window - 1, -1, -1, device=self._positions.device)
            seen = self._positions[:, None] - back
            index = self._first[:, :, None] + seen.clamp(min=0)[:, None]
            self._windows[window] = (index.view(-1), _bias(seen >= 0, self._kv.dtype))
        return self._windows[window]


def _bias(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """[R, L] bool to [R, 1, 1, L], 0 where seen and -inf elsewhere."""
    bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return bias.masked_fill_(~seen, float("-inf"))[:, None, None]
