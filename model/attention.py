"""Attention over packed documents: one facade over our Triton kernels, torch's SDPA and a float reference.

Shapes: T tokens of a pack, S keys (S = T unless said otherwise), H query heads, G key/value heads, K channels a head.
"""

import functools
import logging
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from ..errors import ConfigError
from .attention_documents import Documents, SharedDocuments
from .attention_sdpa import sdpa_attention, shared_attention
from .kernels.attention import LARGEST_HEAD, blocks_of, varlen_attention
from .kernels.launch import on_cuda, why_not
from .kernels.reference import reference_attention, reference_tree_attention
from .kernels.tree import tree_attention

logger = logging.getLogger(__name__)

Backend = Literal["auto", "triton", "sdpa", "reference"]


class KeyValueCache(Protocol):
    """What lets a decoder attend to tokens of earlier calls."""

    def attend(self, layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
        """Keep the new keys and values, and attend to all that are kept. Returns [T, H, K]."""
        ...


def attend(
    q_THK: Tensor,
    k_SGK: Tensor,
    v_SGK: Tensor,
    documents: Documents,
    window: int | None,
    *,
    keys: Documents | None = None,
    backend: Backend = "auto",
) -> Tensor:
    """Causal grouped-query attention inside each document, scaled by K^-1/2.

    Args:
        q_THK: [T, H, K].
        k_SGK, v_SGK: [S, G, K]; each serves H / G query heads.
        documents: of the queries; sum of lengths is T.
        window: keys a token sees, itself included; None for all before it.
        keys: of the keys, where those are more than the queries: as many documents, each ending at the token at which
            its queries end; sum of lengths is S. None: the same as ``documents``.
        backend: see ``choose_backend``.
    Returns:
        [T, H, K] in the dtype of the queries.
    Raises:
        ConfigError: the backend cannot run here.
        ValueError: a document has more queries than keys, or a window sees nothing.
    """
    if window is not None and window < 1:
        raise ValueError(f"the window is {window}; a token sees at least itself: give 1 or more, or None")
    if isinstance(documents, SharedDocuments):
        return _attend_shared(q_THK, k_SGK, v_SGK, documents, window, backend)
    if keys is not None:
        _check_keys(documents, keys)
    chosen = choose_backend(backend, q_THK.device, q_THK.dtype, q_THK.shape[-1])
    keys = keys or documents
    if chosen == "reference":
        return reference_attention(q_THK, k_SGK, v_SGK, documents.lengths, keys.lengths, window)[0]
    if chosen == "sdpa":
        return sdpa_attention(q_THK, k_SGK, v_SGK, documents, keys, window)
    head_dim = q_THK.shape[-1]
    tile = blocks_of(head_dim, q_THK.dtype).tile
    seen = 0 if window is None or window >= max(keys.lengths, default=0) else window
    out, _ = varlen_attention(
        *(q_THK, k_SGK, v_SGK, documents.cu_seqlens, keys.cu_seqlens),
        *(documents.tiles(tile, of="queries"), keys.tiles(tile, of="keys"), seen, head_dim**-0.5, tile),
    )
    return out


def _attend_shared(
    q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, documents: SharedDocuments, window: int | None, backend: Backend
) -> Tensor:
    """Each token sees those on its path."""
    head_dim = q_THK.shape[-1]
    chosen = choose_backend(backend, q_THK.device, q_THK.dtype, head_dim)
    if chosen == "sdpa":
        return shared_attention(q_THK, k_TGK, v_TGK, documents, window)
    if chosen == "reference":
        return reference_tree_attention(q_THK, k_TGK, v_TGK, documents.ends, documents.positions, window)[0]
    blocks, seen = blocks_of(head_dim, q_THK.dtype), window or 0
    out, _ = tree_attention(
        *(q_THK, k_TGK, v_TGK, documents.ends, documents.depths, *documents.tree(blocks, seen)),
        *(seen, head_dim**-0.5, blocks.tile),
    )
    return out


def choose_backend(
    setting: Backend, device: torch.device, dtype: torch.dtype, head_dim: int
) -> Literal["triton", "sdpa", "reference"]:
    """What a setting means for tensors of this kind. What runs is logged once.

    Args:
        setting: "triton", our kernels; "sdpa", torch's; "reference", plain and slow, in any precision; "auto", triton
            on CUDA and sdpa elsewhere, and on CUDA where the kernels cannot run.
    Raises:
        ConfigError: the setting cannot work; it says why and what would.
    """
    if setting not in get_args(Backend):
        raise ConfigError(f"the attention backend is {setting!r}; it must be one of {', '.join(get_args(Backend))}")
    if setting in ("sdpa", "reference"):
        _log_once(setting, device.type, None)
        return setting
    if head_dim > LARGEST_HEAD:
        reason = f"a head has {head_dim} channels and the kernels take {LARGEST_HEAD}; use 'sdpa'"
    else:
        reason = why_not(device, dtype)
    if setting == "triton" and reason is not None:
        raise ConfigError(f"the attention backend 'triton' cannot run: {reason}")
    if setting == "auto" and (reason is not None or not on_cuda(device)):
        _log_once("sdpa", device.type, reason if on_cuda(device) else None)
        return "sdpa"
    _log_once("triton", device.type, None)
    return "triton"


@functools.cache
def _log_once(chosen: str, device: str, reason: str | None) -> None:
    logger.info("attention on %s runs on %s%s", device, chosen, f": {reason}" if reason else "")


def _check_keys(documents: Documents, keys: Documents) -> None:
    if len(documents.lengths) != len(keys.lengths):
        raise ValueError(
            f"there are queries of {len(documents.lengths)} documents and keys of {len(keys.lengths)}; "
            "give each document its keys"
        )
    for index, (queries, count) in enumerate(zip(documents.lengths, keys.lengths)):
        if queries > count:
            raise ValueError(
                f"document {index} has {queries} queries and {count} keys; each query needs its own key at least"
            )
