"""Backward attention over packed documents in two passes, neither of which adds to memory atomically.

``attention_grad_queries``: a program owns a tile of queries of one head and walks over the keys it sees; it also
writes delta, the row sums of out x grad, which the second pass reads.
``attention_grad_keys``: a program owns a tile of keys of one key/value head and walks over the queries that see it, of
every query head of the group in turn, so that the sum over the group has one fixed order.
"""

# pyright: reportGeneralTypeIssues=false
# Types of Triton's functions are those of the compiler, not of their callers here.
import triton
import triton.language as tl

from .steps_triton import key_step, query_step
from .tiles_triton import LOG2_E, begin_of, keys_of, load_rows, product, queries_of, store_rows, tile_of, visible


@triton.jit
def attention_grad_queries(
    queries,
    keys,
    values,
    outs,
    grad_outs,
    grad_queries,
    logsumexp,
    deltas,
    cu_queries,
    cu_keys,
    tiles,
    query_stride,
    query_head_stride,
    key_stride,
    key_head_stride,
    value_stride,
    value_head_stride,
    out_stride,
    out_head_stride,
    logsumexp_head_stride,
    softmax_scale,
    window,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILE: tl.constexpr,
    INNER: tl.constexpr,
    WINDOWED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid [tiles, query heads]. outs, grad_outs and grad_queries share their strides."""
    head = tl.program_id(1)
    first, query_start, num_queries, key_start, num_keys = tile_of(tiles, cu_queries, cu_keys)
    shift = num_keys - num_queries
    rows = tl.arange(0, TILE)
    kv_head = head // GROUP
    out_offset = tl.cast(query_start, tl.int64) * out_stride + head * out_head_stride
    query_base = begin_of(queries, query_start, query_stride, head, query_head_stride)
    key_base = begin_of(keys, key_start, key_stride, kv_head, key_head_stride)
    value_base = begin_of(values, key_start, value_stride, kv_head, value_head_stride)
    query = load_rows(query_base, first, rows, num_queries, query_stride, HEAD_DIM, COLUMNS, True)
    out = load_rows(outs + out_offset, first, rows, num_queries, out_stride, HEAD_DIM, COLUMNS, True)
    grad_out = load_rows(grad_outs + out_offset, first, rows, num_queries, out_stride, HEAD_DIM, COLUMNS, True)
    delta = tl.sum(out.to(tl.float32) * grad_out.to(tl.float32), 1)
    inside = first + rows < num_queries
    row = head * logsumexp_head_stride + query_start + first + rows
    tl.store(deltas + row, delta, mask=inside)
    # Rows beyond the document weigh nothing: exp2(-inf) is 0.
    row_logsumexp = tl.load(logsumexp + row, mask=inside, other=float("inf")) * LOG2_E
    positions = first + shift + rows
    scale = softmax_scale * LOG2_E
    low, full_low, full_high, high = keys_of(first, shift, num_keys, window, TILE, INNER, WINDOWED)

    grad_query = tl.zeros([TILE, COLUMNS], tl.float32)
    block = tl.arange(0, INNER)
    for start in range(low, high, INNER):
        key = load_rows(key_base, start, block, num_keys, key_stride, HEAD_DIM, COLUMNS, True)
        value = load_rows(value_base, start, block, num_keys, value_stride, HEAD_DIM, COLUMNS, True)
        scores = product(query, tl.trans(key), UPCAST)
        weights = tl.math.exp2(scores * scale - row_logsumexp[:, None])
        if (start < full_low) | (start >= full_high):
            distance = positions[:, None] - (start + block)[None, :]
            weights = tl.where(visible(distance, window, WINDOWED), weights, 0.0)
        grad_query = query_step(grad_query, weights, grad_out, key, value, delta, UPCAST)
    store_rows(
        *(grad_queries + out_offset, first, rows, num_queries, out_stride, grad_query * softmax_scale),
        *(HEAD_DIM, COLUMNS),
    )


@triton.jit
def attention_grad_keys(
    queries,
    keys,
    values,
    grad_outs,
    grad_keys,
    grad_values,
    logsumexp,
    deltas,
    cu_queries,
    cu_keys,
    tiles,
    query_stride,
    query_head_stride,
    key_stride,
    key_head_stride,
    value_stride,
    value_head_stride,
    out_stride,
    out_head_stride,
    grad_stride,
    grad_head_stride,
    logsumexp_head_stride,
    softmax_scale,
    window,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILE: tl.constexpr,
    INNER: tl.constexpr,
    WINDOWED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid [tiles of keys, key/value heads]. grad_keys and grad_values share their strides.

    Scores are held transposed, [keys, queries], so that no product needs its large operand turned. The mask is applied
    under a branch: with the two gradients in registers, the loop split in three, as in the other passes, spills.
    """
    kv_head = tl.program_id(1)
    first, query_start, num_queries, key_start, num_keys = tile_of(tiles, cu_queries, cu_keys)
    shift = num_keys - num_queries
    rows = tl.arange(0, TILE)
    key_base = begin_of(keys, key_start, key_stride, kv_head, key_head_stride)
    value_base = begin_of(values, key_start, value_stride, kv_head, value_head_stride)
    key = load_rows(key_base, first, rows, num_keys, key_stride, HEAD_DIM, COLUMNS, True)
    value = load_rows(value_base, first, rows, num_keys, value_stride, HEAD_DIM, COLUMNS, True)
    columns = first + rows
    scale = softmax_scale * LOG2_E
    low, full_low, full_high, high = queries_of(first, shift, num_queries, window, TILE, INNER, WINDOWED)

    grad_key = tl.zeros([TILE, COLUMNS], tl.float32)
    grad_value = tl.zeros([TILE, COLUMNS], tl.float32)
    block = tl.arange(0, INNER)
    for member in range(GROUP):
        head = kv_head * GROUP + member
        query_base = begin_of(queries, query_start, query_stride, head, query_head_stride)
        grad_out_base = begin_of(grad_outs, query_start, out_stride, head, out_head_stride)
        logsumexp_base = logsumexp + head * logsumexp_head_stride + query_start
        delta_base = deltas + head * logsumexp_head_stride + query_start
        for start in range(low, high, INNER):
            query = load_rows(query_base, start, block, num_queries, query_stride, HEAD_DIM, COLUMNS, True)
            grad_out = load_rows(grad_out_base, start, block, num_queries, out_stride, HEAD_DIM, COLUMNS, True)
            row = start + block
            row_logsumexp = tl.load(logsumexp_base + row, mask=row < num_queries, other=float("inf")) * LOG2_E
            delta = tl.load(delta_base + row, mask=row < num_queries, other=0.0)
            scores = product(key, tl.trans(query), UPCAST)
            weights = tl.math.exp2(scores * scale - row_logsumexp[None, :])
            if (start < full_low) | (start >= full_high):
                distance = (row + shift)[None, :] - columns[:, None]
                weights = tl.where(visible(distance, window, WINDOWED), weights, 0.0)
            grad_key, grad_value = key_step(grad_key, grad_value, weights, query, grad_out, value, delta, UPCAST)
    offset = tl.cast(key_start, tl.int64) * grad_stride + kv_head * grad_head_stride
    store_rows(grad_keys + offset, first, rows, num_keys, grad_stride, grad_key * softmax_scale, HEAD_DIM, COLUMNS)
    store_rows(grad_values + offset, first, rows, num_keys, grad_stride, grad_value, HEAD_DIM, COLUMNS)
