"""The attention kernels as torch operators: traced under fake tensors, compiled and differentiated like torch's own.

Shapes: T query tokens and S key tokens of a pack, N documents, H query heads, G key/value heads, K channels a head.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .launch import launch, padded

# Channels of a head that a program's registers and shared memory hold.
LARGEST_HEAD = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How the three passes cut their work: rows a program owns, rows it takes at a time, warps, pipeline stages."""

    tile: int
    forward: tuple[int, int, int]
    grad_queries: tuple[int, int, int]
    grad_keys: tuple[int, int, int]


def blocks_of(head_dim: int, dtype: torch.dtype, tile: int | None = None) -> Blocks:
    """The blocks for a head size; docs/design/003-kernels.md says how they were chosen.

    Args:
        tile: rows a program owns; None for what suits the head size. Small ones are for tests.
    """
    wide = padded(head_dim) > 64
    if tile is None:
        tile = 128 if dtype.itemsize == 2 and head_dim <= 128 else 64
    if tile < 64:
        return Blocks(tile=tile, forward=(tile, 4, 2), grad_queries=(tile, 4, 2), grad_keys=(tile, 4, 2))
    if dtype.itemsize == 4 or head_dim > 128:
        return Blocks(tile=tile, forward=(32, 4, 2), grad_queries=(32, 4, 2), grad_keys=(16, 4, 2))
    if wide:
        return Blocks(tile=tile, forward=(64, 8, 3), grad_queries=(64, 8, 3), grad_keys=(32, 8, 2))
    return Blocks(tile=tile, forward=(64, 4, 3), grad_queries=(64, 4, 2), grad_keys=(64, 4, 2))


def tile_table(lengths: Sequence[int], tile: int, *, heaviest_last_rows: bool) -> list[tuple[int, int]]:
    """[(document, first row)] of every tile, those with most work first, so that no long tile starts late.

    Args:
        heaviest_last_rows: queries at a document's end see most keys; keys at its start are seen by most queries.
    """
    tiles = [
        (first if heaviest_last_rows else length - first, document, first)
        for document, length in enumerate(lengths)
        for first in range(0, length, tile)
    ]
    # Stable and complete: the order is the same on every machine.
    tiles.sort(key=lambda row: (-row[0], row[1]))
    return [(document, first) for _, document, first in tiles]


@torch.library.custom_op("verigym::varlen_attention", mutates_args=())
def varlen_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_queries: Tensor,
    cu_keys: Tensor,
    query_tiles: Tensor,
    key_tiles: Tensor,
    window: int,
    scale: float,
    tile: int,
) -> tuple[Tensor, Tensor]:
    """Causal grouped-query attention inside each document; a document's last query stands at its last key.

    Args:
        q: [T, H, K]. k, v: [S, G, K]. bfloat16, float16 or float32, channels contiguous.
        cu_queries, cu_keys: [N + 1] int32, where the documents of q and of k and v start. No document has more
            queries than keys.
        query_tiles, key_tiles: [tiles, 2] int32, of ``tile_table`` with ``tile`` rows.
        window: keys a query sees, itself included; 0 for all before it.
        scale: of the scores, before the softmax.
    Returns:
        (out [T, H, K] contiguous, in the dtype of q; log-sum-exp of the scaled scores [H, T] float32, nats, which
        gets no gradient).
    """
    from .attention_forward_triton import attention_forward
    from .tiles_triton import LOG2_E

    _, num_heads, head_dim = q.shape
    q, k, v = channels_contiguous(q), channels_contiguous(k), channels_contiguous(v)
    out, logsumexp = empty_outputs(q)
    if not query_tiles.shape[0]:
        return out, logsumexp
    blocks = blocks_of(head_dim, q.dtype, tile)
    launch(
        attention_forward,
        (query_tiles.shape[0], num_heads),
        *(q, k, v, out, logsumexp, cu_queries, cu_keys, query_tiles),
        *(*q.stride()[:2], *k.stride()[:2], *v.stride()[:2], *out.stride()[:2], logsumexp.stride(0)),
        *(scale * LOG2_E.value, window),
        blocks=blocks.forward,
        **constants_of(q, k, tile, window),
    )
    return out, logsumexp


@varlen_attention.register_fake
def _(q, *rest):
    return empty_outputs(q)


@torch.library.custom_op("verigym::varlen_attention_backward", mutates_args=())
def varlen_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    cu_queries: Tensor,
    cu_keys: Tensor,
    query_tiles: Tensor,
    key_tiles: Tensor,
    window: int,
    scale: float,
    tile: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q [T, H, K], k and v [S, G, K], contiguous; every sum has one fixed order."""
    from .attention_backward_triton import attention_grad_keys, attention_grad_queries

    head_dim = q.shape[2]
    q, k, v = channels_contiguous(q), channels_contiguous(k), channels_contiguous(v)
    grad = grad.contiguous()
    grad_q = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    grad_k, grad_v = (torch.empty(k.shape, dtype=k.dtype, device=k.device) for _ in range(2))
    deltas = torch.empty_like(logsumexp)
    blocks = blocks_of(head_dim, q.dtype, tile)
    where = (cu_queries, cu_keys)
    strides = (*q.stride()[:2], *k.stride()[:2], *v.stride()[:2], *out.stride()[:2])
    if query_tiles.shape[0]:
        launch(
            attention_grad_queries,
            (query_tiles.shape[0], q.shape[1]),
            *(q, k, v, out, grad, grad_q, logsumexp, deltas, *where, query_tiles),
            *(*strides, logsumexp.stride(0), scale, window),
            blocks=blocks.grad_queries,
            **constants_of(q, k, tile, window),
        )
    if key_tiles.shape[0]:
        launch(
            attention_grad_keys,
            (key_tiles.shape[0], k.shape[1]),
            *(q, k, v, grad, grad_k, grad_v, logsumexp, deltas, *where, key_tiles),
            *(*strides, *grad_k.stride()[:2], logsumexp.stride(0), scale, window),
            blocks=blocks.grad_keys,
            **constants_of(q, k, tile, window),
        )
    return grad_q, grad_k, grad_v


@varlen_attention_backward.register_fake
def _(grad, q, k, v, out, logsumexp, cu_queries, cu_keys, query_tiles, key_tiles, window, scale, tile):
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))


def _save(ctx, inputs, output) -> None:
    q, k, v, *where, window, scale, tile = inputs
    ctx.save_for_backward(q, k, v, *output, *where)
    ctx.settings = (window, scale, tile)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad, _):
    q, k, v, out, logsumexp, *where = ctx.saved_tensors
    grads = varlen_attention_backward(grad, q, k, v, out, logsumexp, *where, *ctx.settings)
    return (*grads, *(None for _ in range(7)))


varlen_attention.register_autograd(_backward, setup_context=_save)


def empty_outputs(q: Tensor) -> tuple[Tensor, Tensor]:
    """(out [T, H, K] in the dtype of q, log-sum-exp [H, T] float32) of queries [T, H, K], yet to be written."""
    num_tokens, num_heads, _ = q.shape
    return (
        torch.empty(q.shape, dtype=q.dtype, device=q.device),
        torch.empty((num_heads, num_tokens), dtype=torch.float32, device=q.device),
    )


def channels_contiguous(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def constants_of(q: Tensor, k: Tensor, tile: int, window: int) -> dict[str, int | bool]:
    """What the passes are compiled for."""
    head_dim = q.shape[2]
    return {
        "GROUP": q.shape[1] // k.shape[1],
        "HEAD_DIM": head_dim,
        "COLUMNS": padded(head_dim),
        "TILE": tile,
        "WINDOWED": window > 0,
    }


def attention_flops(lengths: Sequence[int], window: int | None, num_heads: int, head_dim: int) -> int:
    """Floating-point operations of the forward pass: 4 K for every pair of query and key that see each other. The
    backward pass has 2.5 times as many."""
    pairs = 0
    for length in lengths:
        seen = min(window or length, length)
        pairs += seen * (seen + 1) // 2 + (length - seen) * seen
    return 4 * head_dim * num_heads * pairs
