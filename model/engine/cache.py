"""Keys and values in pages, one tensor for each group of layers.

Shapes: P pages of C tokens, R rows (sequences), T tokens of a prefill, H query heads, G key/value heads, K channels a
head, W window.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import DecoderConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """Layers that keep the same tokens. ``window``: how many a token sees, itself included; None for all."""

    layers: tuple[int, ...]
    window: int | None


def layer_groups(config: DecoderConfig) -> list[LayerGroup]:
    """The global layers and the sliding ones, where there are such."""
    windows = [config.window_of(layer) for layer in range(config.num_layers)]
    return [
        LayerGroup(layers=tuple(layer for layer, own in enumerate(windows) if own == window), window=window)
        for window in sorted(set(windows), key=lambda window: window is not None)
    ]


class KeyValuePages:
    """Storage of all groups.

    Attributes:
        kv: of each group [2, its layers, P, G, C, K]; keys, then values.
        where: of each layer, (its group, its place in it).
    """

    def __init__(
        self,
        config: DecoderConfig,
        num_pages: Sequence[int],
        page_size: int,
        *,
        num_heads: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """
        Args:
            num_heads: key/value heads of this process.
        """
        self.groups = layer_groups(config)
        self.page_size, self.num_heads, self.head_dim = page_size, num_heads, config.head_dim
        # Zeros: what was never written is masked, but 0 x NaN would still be NaN.
        self.kv = [
            torch.zeros(
                2, len(group.layers), count, self.num_heads, page_size, self.head_dim, dtype=dtype, device=device
            )
            for group, count in zip(self.groups, num_pages, strict=True)
        ]
        self.where = {layer: (g, i) for g, group in enumerate(self.groups) for i, layer in enumerate(group.layers)}
        # Of each layer, its keys' and its values' pages as rows of one head: [P x G x C, K].
        self._flat = {
            layer: [side.view(-1, self.head_dim) for side in self.kv[g][:, i]] for layer, (g, i) in self.where.items()
        }
        self._heads = torch.arange(self.num_heads, device=device) * page_size

    def copy(self, group: int, source: int, target: int, count: int) -> None:
        """Copy the first ``count`` tokens of a page to another."""
        kv = self.kv[group]
        kv[:, :, target, :, :count] = kv[:, :, source, :, :count]

    def clear(self) -> None:
        """Forget numbers that are not finite, which no mask could hide."""
        for kv in self.kv:
            kv.zero_()

    def places(self, slots: Sequence[np.ndarray]) -> list[Tensor]:
        """Where in each group's flattened pages the heads of some tokens lie.

        Args:
            slots: of each group [T], see ``plans``.
        Returns:
            of each group [T x G] int64.
        """
        found = []
        for group_slots in slots:
            pages, offsets = np.divmod(group_slots, self.page_size)
            first = torch.from_numpy(pages * (self.num_heads * self.page_size) + offsets).to(self._heads.device)
            found.append((first[:, None] + self._heads).view(-1))
        return found

    def write(self, layer: int, places: Sequence[Tensor], k_TGK: Tensor, v_TGK: Tensor) -> None:
        """Keep new keys and values at ``places``."""
        group, _ = self.where[layer]
        for side, new in zip(self._flat[layer], (k_TGK, v_TGK)):
            side.index_copy_(0, places[group], new.reshape(-1, self.head_dim))

    def read(self, group: int, pages: np.ndarray) -> Tensor:
        """[2, layers, G, tokens, K]: a copy of what some pages hold, end to end."""
        kv = self.kv[group]
        found = kv.index_select(2, torch.from_numpy(pages).to(kv.device))
        return found.transpose(2, 3).flatten(3, 4)
