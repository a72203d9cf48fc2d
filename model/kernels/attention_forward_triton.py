"""Forward attention over packed documents, with the log-sum-exp of every row out.

One program takes a tile of TILE queries of one head and walks over the keys it sees in blocks of INNER, with the
softmax kept online in base 2 (FlashAttention-2, arXiv:2307.08691). Only the blocks at the diagonal and at the edge of
the window are masked; the main loop between them is not.
"""

# pyright: reportGeneralTypeIssues=false
# Types of Triton's functions are those of the compiler, not of their callers here.
import triton
import triton.language as tl

from .steps_triton import softmax_end, softmax_step
from .tiles_triton import begin_of, keys_of, load_rows, product, tile_of, visible


@triton.jit
def _walk(
    total,
    row_max,
    out,
    query,
    key_base,
    value_base,
    low,
    high,
    num_keys,
    positions,
    key_stride,
    value_stride,
    scale,
    window,
    HEAD_DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
    WINDOWED: tl.constexpr,
    MASKED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Take the keys in [low, high) into the running softmax."""
    block = tl.arange(0, INNER)
    for start in range(low, high, INNER):
        key = load_rows(key_base, start, block, num_keys, key_stride, HEAD_DIM, COLUMNS, MASKED)
        scores = product(query, tl.trans(key), UPCAST)
        if MASKED:
            distance = positions[:, None] - (start + block)[None, :]
            scores = tl.where(visible(distance, window, WINDOWED), scores, float("-inf"))
        total, row_max, out = softmax_step(
            *(total, row_max, out, scores, value_base, start, block, num_keys, value_stride, scale),
            *(HEAD_DIM, COLUMNS, MASKED, UPCAST),
        )
    return total, row_max, out


@triton.jit
def attention_forward(
    queries,
    keys,
    values,
    outs,
    logsumexp,
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
    scale,
    window,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
    TILE: tl.constexpr,
    INNER: tl.constexpr,
    WINDOWED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid [tiles, query heads]. ``scale`` multiplies the scores in base 2: softmax scale x log2(e)."""
    head = tl.program_id(1)
    first, query_start, num_queries, key_start, num_keys = tile_of(tiles, cu_queries, cu_keys)
    shift = num_keys - num_queries
    rows = tl.arange(0, TILE)
    kv_head = head // GROUP
    query_base = begin_of(queries, query_start, query_stride, head, query_head_stride)
    key_base = begin_of(keys, key_start, key_stride, kv_head, key_head_stride)
    value_base = begin_of(values, key_start, value_stride, kv_head, value_head_stride)
    query = load_rows(query_base, first, rows, num_queries, query_stride, HEAD_DIM, COLUMNS, True)
    positions = first + shift + rows
    low, full_low, full_high, high = keys_of(first, shift, num_keys, window, TILE, INNER, WINDOWED)

    total = tl.zeros([TILE], tl.float32)
    row_max = tl.full([TILE], float("-inf"), tl.float32)
    out = tl.zeros([TILE, COLUMNS], tl.float32)
    if WINDOWED:
        total, row_max, out = _walk(
            *(total, row_max, out, query, key_base, value_base, low, full_low, num_keys, positions),
            *(key_stride, value_stride, scale, window, HEAD_DIM, COLUMNS, INNER, True, True, UPCAST),
        )
    total, row_max, out = _walk(
        *(total, row_max, out, query, key_base, value_base, full_low, full_high, num_keys, positions),
        *(key_stride, value_stride, scale, window, HEAD_DIM, COLUMNS, INNER, WINDOWED, False, UPCAST),
    )
    total, row_max, out = _walk(
        *(total, row_max, out, query, key_base, value_base, full_high, high, num_keys, positions),
        *(key_stride, value_stride, scale, window, HEAD_DIM, COLUMNS, INNER, WINDOWED, True, UPCAST),
    )

    out_base = begin_of(outs, query_start, out_stride, head, out_head_stride)
    logsumexp_row = logsumexp + head * logsumexp_head_stride + query_start + first + rows
    softmax_end(
        *(total, row_max, out, out_base, logsumexp_row, first, rows, num_queries, out_stride, HEAD_DIM, COLUMNS)
    )
