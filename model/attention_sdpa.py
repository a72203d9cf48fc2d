"""Attention over packed documents through torch's scaled_dot_product_attention.

Shapes: T query tokens and S key tokens of a pack, H query heads, G key/value heads, K channels a head, W window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .attention_documents import Documents, SharedDocuments


def sdpa_attention(
    q_THK: Tensor,
    k_SGK: Tensor,
    v_SGK: Tensor,
    documents: Documents,
    keys: Documents,
    window: int | None,
) -> Tensor:
    """As ``attention.attend``: document by document, or in blocks of the window where that sees less."""
    if window is not None and window < max(keys.lengths, default=0) and documents.lengths == keys.lengths:
        return _banded(q_THK, k_SGK, v_SGK, documents.band(window))
    # split, not slices: the gradient of N slices is N full-sized tensors.
    parts = (q_THK.split(documents.lengths or [0]), *(x.split(keys.lengths or [0]) for x in (k_SGK, v_SGK)))
    return torch.cat([_causal(q, k, v, window) for q, k, v in zip(*parts, strict=True)])


def shared_attention(
    q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, documents: SharedDocuments, window: int | None
) -> Tensor:
    """As ``attention.attend``, over documents with shared beginnings: each document's own tokens ask, all of its tokens
    answer."""
    found = []
    for q, path in zip(q_THK.split(documents.lengths), documents.paths, strict=True):
        if q.shape[0]:
            found.append(_causal(q, k_TGK.index_select(0, path), v_TGK.index_select(0, path), window))
    return torch.cat(found)


def _causal(q_LHK: Tensor, k_LGK: Tensor, v_LGK: Tensor, window: int | None) -> Tensor:
    length, count = q_LHK.shape[0], k_LGK.shape[0]
    if not length:
        return q_LHK
    mask = None
    if length < count or (window or count) < count:
        index = torch.arange(count, device=q_LHK.device)
        distance = index[count - length :, None] - index
        mask = (distance >= 0) & (distance < (window or count))
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (q_LHK, k_LGK, v_LGK))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
    return out.squeeze(0).transpose(0, 1)


def _banded(q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, band: Tensor) -> Tensor:
    """Windowed attention by blocks of W queries, each against two blocks of keys: cost T x 2 W, not T x T."""
    count, _, window, _ = band.shape
    num_tokens, _, head_dim = q_THK.shape
    tail = count * window - num_tokens
    kv = F.pad(torch.cat((k_TGK, v_TGK), dim=-1), (0, 0, 0, 0, window, tail))
    kv = kv.unflatten(0, (count + 1, window))
    k, v = torch.cat((kv[:-1], kv[1:]), dim=1).transpose(1, 2).split(head_dim, dim=-1)
    q = F.pad(q_THK, (0, 0, 0, 0, 0, tail)).unflatten(0, (count, window)).transpose(1, 2)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=band, enable_gqa=True)
    return out.transpose(1, 2).flatten(0, 1)[:num_tokens]
