"""Attention over a tree of tokens as a torch operator: each token sees those on the way to it from its root.

Shapes: T tokens in depth-first order, H query heads, G key/value heads, K channels a head.
"""

import numpy as np
import torch
from torch import Tensor

from .attention import Blocks, blocks_of, channels_contiguous, constants_of, empty_outputs
from .launch import launch

Tables = tuple[np.ndarray, np.ndarray]


def tree_tables(ends: np.ndarray, depths: np.ndarray, window: int, blocks: Blocks) -> tuple[Tables, Tables]:
    """Which blocks each tile of queries and each tile of keys meets, so that nothing else is loaded.

    Args:
        ends: [T] int64, behind the last descendant of each token; depths: [T] int64, tokens before it on its way.
        window: keys that a token sees, itself included; 0 for all.
    Returns:
        ((tiles [n, 4], blocks [m]) of tiles of queries and blocks of keys, (tiles, blocks) the other way round), int32.
        A tile is its first row and three places in ``blocks``: the blocks up to the second are seen whole, those from
        there to the third need a mask. A block is its first row. Tiles with most blocks come first.
    """
    assert blocks.forward[0] == blocks.grad_queries[0], "both walk over the same table"
    key_block, query_block = blocks.forward[0], blocks.grad_keys[0]
    some, whole = _meeting(ends, depths, window, blocks.tile, key_block)
    by_queries = _table(some, whole, blocks.tile, key_block)
    some, whole = _meeting(ends, depths, window, query_block, blocks.tile)
    return by_queries, _table(some.T, whole.T, blocks.tile, query_block)


def _meeting(ends: np.ndarray, depths: np.ndarray, window: int, queries: int, keys: int) -> Tables:
    """([blocks of queries, blocks of keys] bool whether some pair may see each other, whether every pair does)."""
    query_starts, key_starts = np.arange(0, len(ends), queries), np.arange(0, len(ends), keys)
    first_query, first_key = query_starts[:, None], key_starts[None]
    # Rows behind the last token are not stored, and weigh nothing.
    last_query, last_key = np.minimum(first_query + queries, len(ends)) - 1, first_key + keys - 1
    if not len(ends):
        nothing = np.zeros((0, 0), bool)
        return nothing, nothing
    some = (first_key <= last_query) & (np.maximum.reduceat(ends, key_starts) > first_query)
    whole = (last_key <= first_query) & (np.minimum.reduceat(ends, key_starts) > last_query)
    if window:
        least, largest = (of.reduceat(depths, query_starts)[:, None] for of in (np.minimum, np.maximum))
        some &= least - np.maximum.reduceat(depths, key_starts) < window
        whole &= largest - np.minimum.reduceat(depths, key_starts) < window
    return some, whole


def _table(some: np.ndarray, whole: np.ndarray, tile: int, block: int) -> Tables:
    """Of tiles in rows and blocks in columns."""
    tiles, found, count = [], [np.zeros(0, np.int64)], 0
    for number in np.argsort(-some.sum(1), kind="stable"):
        seen, masked = (np.flatnonzero(some[number] & kind) for kind in (whole[number], ~whole[number]))
        middle, end = count + len(seen), count + len(seen) + len(masked)
        tiles.append((number * tile, count, middle, end))
        found += [seen * block, masked * block]
        count = end
    return np.array(tiles, np.int32).reshape(-1, 4), np.concatenate(found).astype(np.int32)


@torch.library.custom_op("verigym::tree_attention", mutates_args=())
def tree_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ends: Tensor,
    depths: Tensor,
    query_tiles: Tensor,
    key_blocks: Tensor,
    key_tiles: Tensor,
    query_blocks: Tensor,
    window: int,
    scale: float,
    tile: int,
) -> tuple[Tensor, Tensor]:
    """Grouped-query attention in which query i sees key j where j <= i < ends[j], and depths[i] - depths[j] < window.

    Args:
        q: [T, H, K]. k, v: [T, G, K]. bfloat16, float16 or float32, channels contiguous.
        ends, depths: [T] int32. query_tiles, key_blocks, key_tiles, query_blocks: of ``tree_tables``, for the blocks
            that ``blocks_of`` says for ``tile`` rows.
        window: keys a query sees, itself included; 0 for all on its way.
        scale: of the scores, before the softmax.
    Returns:
        (out [T, H, K] contiguous, in the dtype of q; log-sum-exp of the scaled scores [H, T] float32, nats, which
        gets no gradient).
    """
    from .tiles_triton import LOG2_E
    from .tree_triton import tree_forward

    q, k, v = channels_contiguous(q), channels_contiguous(k), channels_contiguous(v)
    out, logsumexp = empty_outputs(q)
    if q.shape[0]:
        launch(
            tree_forward,
            (query_tiles.shape[0], q.shape[1]),
            *(q, k, v, out, logsumexp, ends, depths, query_tiles, key_blocks, q.shape[0]),
            *(*q.stride()[:2], *k.stride()[:2], *v.stride()[:2], *out.stride()[:2], logsumexp.stride(0)),
            *(scale * LOG2_E.value, window),
            blocks=blocks_of(q.shape[2], q.dtype, tile).forward,
            **constants_of(q, k, tile, window),
        )
    return out, logsumexp


@tree_attention.register_fake
def _(q, *rest):
    return empty_outputs(q)


@torch.library.custom_op("verigym::tree_attention_backward", mutates_args=())
def tree_attention_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    ends: Tensor,
    depths: Tensor,
    query_tiles: Tensor,
    key_blocks: Tensor,
    key_tiles: Tensor,
    query_blocks: Tensor,
    window: int,
    scale: float,
    tile: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q [T, H, K], k and v [T, G, K], contiguous; every sum has one fixed order."""
    from .tree_triton import tree_grad_keys, tree_grad_queries

    q, k, v = channels_contiguous(q), channels_contiguous(k), channels_contiguous(v)
    grad = grad.contiguous()
    grad_q = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    grad_k, grad_v = (torch.empty(k.shape, dtype=k.dtype, device=k.device) for _ in range(2))
    if not q.shape[0]:
        return grad_q, grad_k, grad_v
    deltas = torch.empty_like(logsumexp)
    blocks = blocks_of(q.shape[2], q.dtype, tile)
    strides = (*q.stride()[:2], *k.stride()[:2], *v.stride()[:2], *out.stride()[:2])
    launch(
        tree_grad_queries,
        (query_tiles.shape[0], q.shape[1]),
        *(q, k, v, out, grad, grad_q, logsumexp, deltas, ends, depths, query_tiles, key_blocks, q.shape[0]),
        *(*strides, logsumexp.stride(0), scale, window),
        blocks=blocks.grad_queries,
        **constants_of(q, k, tile, window),
    )
    launch(
        tree_grad_keys,
        (key_tiles.shape[0], k.shape[1]),
        *(q, k, v, grad, grad_k, grad_v, logsumexp, deltas, ends, depths, key_tiles, query_blocks, q.shape[0]),
        *(*strides, *grad_k.stride()[:2], logsumexp.stride(0), scale, window),
        blocks=blocks.grad_keys,
        **constants_of(q, k, tile, window),
    )
    return grad_q, grad_k, grad_v


@tree_attention_backward.register_fake
def _(grad, q, k, v, *rest):
    return tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))


def _save(ctx, inputs, output) -> None:
    q, k, v, *where, window, scale, tile = inputs
    ctx.save_for_backward(q, k, v, *output, *where)
    ctx.settings = (window, scale, tile)
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad, _):
    grads = tree_attention_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return (*grads, *(None for _ in range(9)))


tree_attention.register_autograd(_backward, setup_context=_save)
