"""Keys and values of one prompt that is scored in chunks, beside the pages."""

import torch
from torch import Tensor

from ..attention import Backend, Documents, attend


class PromptCache:
    """Keeps what later chunks see: all of it in global layers, a window in sliding ones. See ``KeyValueCache``."""

    def __init__(self, backend: Backend) -> None:
        self._backend: Backend = backend
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
        """Keep the new keys and values and attend to all that are kept. Returns [T, H, K]."""
        if layer in self._kept:
            k, v = (torch.cat(pair) for pair in zip(self._kept[layer], (k_TGK, v_TGK), strict=True))
        else:
            k, v = k_TGK, v_TGK
        seen = len(k) if window is None else min(len(k), window - 1)
        self._kept[layer] = (k[len(k) - seen :], v[len(v) - seen :])
        queries, keys = (Documents.from_lengths([len(x)], device=k.device) for x in (q_THK, k))
        return attend(q_THK, k, v, queries, window, keys=keys, backend=self._backend)
