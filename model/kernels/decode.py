"""Decoding from paged keys and values, as a torch operator.

Shapes: B sequences, H query heads, G key/value heads, K channels a head, P pages of C tokens, M pages a sequence may
have, S splits.
"""

import torch
from torch import Tensor

from .launch import launch, padded

# Tokens of a sequence that one program takes. It is the same for every call, and so is the order of every sum.
SPLIT = 512
BLOCKS = (64, 4, 3)


@torch.library.custom_op("verigym::paged_decode", mutates_args=())
def paged_decode(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    page_table: Tensor,
    lengths: Tensor,
    longest: int,
    window: int,
    scale: float,
    split: int = SPLIT,
) -> tuple[Tensor, Tensor]:
    """Attention of the newest token of each sequence to all it holds. Inference only: it has no gradient.

    Args:
        q: [B, H, K], the newest token's; channels contiguous.
        k_pages, v_pages: [P, C, G, K], any strides but contiguous channels; the newest token is already in them.
        page_table: [B, M] int32; the page of token t of a sequence is entry t // C, and entries beyond its length
            are never read.
        lengths: [B] int32, tokens of each sequence, the newest included; 0 for a row that is not in use.
        longest: at least the largest length; it sizes the grid, and no result depends on it.
        window: keys a token sees, itself included; 0 for all.
        split: a multiple of the kernel's block of 64 tokens (16 where it is less than 64).
    Returns:
        (out [B, H, K], zeros for length 0; log-sum-exp [B, H] float32, nats).
    """
    from .decode_triton import decode_join, decode_split
    from .tiles_triton import LOG2_E

    num_sequences, num_heads, head_dim = q.shape
    num_kv_heads = k_pages.shape[2]
    group = num_heads // num_kv_heads
    num_splits = max(1, -(-longest // split))
    rows = (num_sequences, num_splits, num_heads)
    partials = torch.empty(*rows, head_dim, dtype=torch.float32, device=q.device)
    parts = torch.empty(rows, dtype=torch.float32, device=q.device)
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    logsumexp = torch.empty(num_sequences, num_heads, dtype=torch.float32, device=q.device)
    if not num_sequences:
        return out, logsumexp
    shape = {"HEAD_DIM": head_dim, "COLUMNS": padded(head_dim), "SPLIT": split, "WINDOWED": window > 0}
    launch(
        decode_split,
        (num_splits, num_kv_heads, num_sequences),
        *(q, k_pages, v_pages, partials, parts, page_table, lengths),
        *(*q.stride()[:2], *k_pages.stride()[:3], *v_pages.stride()[:3]),
        *(num_splits, page_table.stride(0), k_pages.shape[1], scale * LOG2_E.value, window),
        blocks=BLOCKS if split >= 64 else (16, 4, 2),
        GROUP=group,
        ROWS=padded(group),
        **shape,
    )
    launch(
        decode_join,
        (num_heads, num_sequences),
        *(partials, parts, out, logsumexp, lengths, num_splits, window),
        blocks=BLOCKS,
        **shape,
    )
    return out, logsumexp


@paged_decode.register_fake
def _(q, k_pages, v_pages, page_table, lengths, longest, window, scale, split=SPLIT):
    return (
        torch.empty(q.shape, dtype=q.dtype, device=q.device),
        torch.empty(q.shape[:2], dtype=torch.float32, device=q.device),
    )
