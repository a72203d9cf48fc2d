"""Which tokens of a pack a rank works on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention import Documents, KeyValueCache, attend
from .collectives import gather_tokens
from .context import ContextParallel, Stretch
from .layout import TENSOR, Layout, Meshes


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One rank's part of a pack that the ranks of ``context`` and ``tensor`` have together.

    Attributes:
        documents: of the tokens that attention sees on this rank, those of its stretch.
        cache: what attends across stretches; None without context parallel.
        own: where this rank's tokens lie in the padded pack.
        num_tokens: of the padded pack.
    """

    documents: Documents
    cache: KeyValueCache | None
    own: slice
    num_tokens: int

    def take(self, values: Tensor, fill: float = 0) -> Tensor:
        """This rank's [T / n] of a pack's [T], which is padded with ``fill``."""
        missing = self.num_tokens - values.shape[0]
        padded = values if not missing else _pad(values, missing, fill)
        return padded[self.own]


def share_of(
    lengths: Sequence[int],
    layout: Layout,
    meshes: Meshes,
    device: torch.device | str = "cpu",
    *,
    attention: Callable[..., Tensor] = attend,
) -> Share:
    """This rank's share of documents laid end to end; all ranks of ``context`` and ``tensor`` must have the same pack.

    The pack is padded to a multiple of context x tensor with a document of its own, which no other attends to.
    """
    split = layout.token_split
    total = sum(lengths)
    padded = split * -(-total // split)
    lengths = [*lengths, padded - total] if padded > total else list(lengths)
    context, tensor = meshes.context_rank, meshes.tensor_rank
    count, own = padded // layout.context, padded // split
    start = context * count + tensor * own
    if layout.context == 1:
        documents, cache = Documents.from_lengths(lengths, device=device), None
    else:
        stretch = Stretch.of(lengths, context * count, count)
        documents = stretch.documents(device)
        cache = ContextParallel(stretch, count, meshes.context, device, attention)
    return Share(documents=documents, cache=cache, own=slice(start, start + own), num_tokens=padded)


def whole_of(values: Tensor, layout: Layout, meshes: Meshes) -> Tensor:
    """[T / n, ...] of this rank's own tokens to [T, ...] of the padded pack, on all n ranks that share it.

    Gradients are summed over these ranks: where each takes the same loss of the whole, it must count 1 / n of it.
    """
    if layout.tensor > 1:
        values = gather_tokens(values, meshes.weights[TENSOR].get_group())
    return gather_tokens(values, meshes.context) if layout.context > 1 else values


def _pad(values: Tensor, missing: int, fill: float) -> Tensor:
    out = values.new_full((values.shape[0] + missing, *values.shape[1:]), fill)
    out[: values.shape[0]] = values
    return out
