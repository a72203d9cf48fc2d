"""Context parallel: every rank has a stretch of the pack's tokens and fetches the keys and values its attention needs.

Global layers gather all keys and values. Sliding layers need no more than the window before the stretch, so each rank
passes its last W - 1 to the next. Stretches are contiguous: later ranks have more to attend to in global layers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from ..attention import Documents, attend
from .collectives import gather_tokens, halo


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A contiguous part of a pack.

    Attributes:
        start: its first token in the pack.
        lengths: tokens of each document in it.
        before: tokens of the first of these documents that lie before the stretch.
    """

    start: int
    lengths: tuple[int, ...]
    before: int

    @classmethod
    def of(cls, lengths: Sequence[int], start: int, count: int) -> "Stretch":
        """The ``count`` tokens from ``start`` on of documents laid end to end."""
        own: list[int] = []
        before = position = 0
        for length in lengths:
            first, last = max(position, start), min(position + length, start + count)
            if first < last:
                before = first - position if not own else before
                own.append(last - first)
            position += length
        return cls(start=start, lengths=tuple(own), before=before)

    def documents(self, device: torch.device | str = "cpu") -> Documents:
        starts = [self.before] + [0] * (len(self.lengths) - 1)
        return Documents.from_lengths(self.lengths, starts=starts, device=device)

    def keys(self, reach: int | None, device: torch.device | str = "cpu") -> Documents:
        """Where the documents of the keys lie, those up to ``reach`` tokens before the stretch included."""
        before = self.before if reach is None else min(self.before, reach)
        return Documents.from_lengths([before + self.lengths[0], *self.lengths[1:]], device=device)


class ContextParallel:
    """Attention of one pack on one rank; give it to the decoder as its cache. See ``attention.KeyValueCache``."""

    def __init__(
        self,
        stretch: Stretch,
        num_tokens: int,
        group: ProcessGroup,
        device: torch.device | str,
        attention: Callable[..., Tensor] = attend,
    ) -> None:
        """
        Args:
            num_tokens: of the stretch, the same on all ranks.
            attention: what attends once the keys are here.
        """
        self._attention = attention
        self._stretch, self._num_tokens, self._group, self._device = stretch, num_tokens, group, device
        self._documents = stretch.documents(device)
        self._keys: dict[int | None, Documents] = {}

    def attend(self, layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
        """Attend to what other ranks hold too. Returns [T, H, K]."""
        kv = torch.stack((k_TGK, v_TGK), dim=1)
        reach = None if window is None or window - 1 > self._num_tokens else window - 1
        if reach is None:
            kv, start = gather_tokens(kv, self._group), self._stretch.start
        elif reach:
            kv, start = torch.cat((halo(kv, reach, self._group), kv)), reach
        else:
            start = 0
        keys = self._keys_within(reach)
        first = start + self._num_tokens - keys.num_tokens
        k, v = kv[first : start + self._num_tokens].unbind(dim=1)
        return self._attention(q_THK, k, v, self._documents, window, keys=keys)

    def _keys_within(self, reach: int | None) -> Documents:
        if reach not in self._keys:
            self._keys[reach] = self._stretch.keys(reach, self._device)
        return self._keys[reach]
