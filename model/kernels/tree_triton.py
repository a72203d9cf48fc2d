"""Attention over a tree of tokens in depth-first order, forward and backward, without atomic sums.

The descendants of a token lie behind it without a gap: query i sees key j where j <= i < ends[j]. Each program owns a
tile and takes the blocks that its table lists, those that need no mask first, so that branches which do not see each
other cost nothing. What happens to a block is as in ``attention_forward_triton`` and ``attention_backward_triton``.
"""

# pyright: reportGeneralTypeIssues=false
# Types of Triton's functions are those of the compiler, not of their callers here.
import triton
import triton.language as tl

from .steps_triton import key_step, query_step, softmax_end, softmax_step
from .tiles_triton import LOG2_E, load_rows, product, store_rows


@triton.jit
def _seen(ends, depths, queries, keys, query_depths, num_tokens, window, WINDOWED: tl.constexpr):
    """Whether each query, [queries, 1] or [1, queries], sees each key, which has the other axis."""
    inside = keys < num_tokens
    seen = (keys <= queries) & (queries < tl.load(ends + keys, mask=inside, other=0))
    if WINDOWED:
        seen = seen & (query_depths - tl.load(depths + keys, mask=inside, other=0) < window)
    return seen


@triton.jit
def _walk(
    total,
    row_max,
    out,
    query,
    key_base,
    value_base,
    ends,
    depths,
    blocks,
    begin,
    end,
    rows,
    row_depths,
    num_tokens,
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
    """Take the blocks of keys at [begin, end) of the table into the running softmax."""
    block = tl.arange(0, INNER)
    for entry in range(begin, end):
        start = tl.load(blocks + entry)
        key = load_rows(key_base, start, block, num_tokens, key_stride, HEAD_DIM, COLUMNS, MASKED)
        scores = product(query, tl.trans(key), UPCAST)
        if MASKED:
            columns = (start + block)[None, :]
            seen = _seen(ends, depths, rows[:, None], columns, row_depths[:, None], num_tokens, window, WINDOWED)
            scores = tl.where(seen, scores, float("-inf"))
        total, row_max, out = softmax_step(
            *(total, row_max, out, scores, value_base, start, block, num_tokens, value_stride, scale),
            *(HEAD_DIM, COLUMNS, MASKED, UPCAST),
        )
    return total, row_max, out


@triton.jit
def tree_forward(
    queries,
    keys,
    values,
    outs,
    logsumexp,
    ends,
    depths,
    tiles,
    blocks,
    num_tokens,
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
    tile = tiles + 4 * tl.program_id(0)
    first, begin, middle, end = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    block = tl.arange(0, TILE)
    rows = first + block
    inside = rows < num_tokens
    row_depths = tl.load(depths + rows, mask=inside, other=0)
    kv_head = head // GROUP
    key_base, value_base = keys + kv_head * key_head_stride, values + kv_head * value_head_stride
    query_base = queries + head * query_head_stride
    query = load_rows(query_base, first, block, num_tokens, query_stride, HEAD_DIM, COLUMNS, True)

    total = tl.zeros([TILE], tl.float32)
    row_max = tl.full([TILE], float("-inf"), tl.float32)
    out = tl.zeros([TILE, COLUMNS], tl.float32)
    total, row_max, out = _walk(
        *(total, row_max, out, query, key_base, value_base, ends, depths, blocks, begin, middle, rows, row_depths),
        *(num_tokens, key_stride, value_stride, scale, window, HEAD_DIM, COLUMNS, INNER, WINDOWED, False, UPCAST),
    )
    total, row_max, out = _walk(
        *(total, row_max, out, query, key_base, value_base, ends, depths, blocks, middle, end, rows, row_depths),
        *(num_tokens, key_stride, value_stride, scale, window, HEAD_DIM, COLUMNS, INNER, WINDOWED, True, UPCAST),
    )

    out_base = outs + head * out_head_stride
    logsumexp_row = logsumexp + head * logsumexp_head_stride + rows
    softmax_end(
        *(total, row_max, out, out_base, logsumexp_row, first, block, num_tokens, out_stride, HEAD_DIM, COLUMNS)
    )


@triton.jit
def tree_grad_queries(
    queries,
    keys,
    values,
    outs,
    grad_outs,
    grad_queries,
    logsumexp,
    deltas,
    ends,
    depths,
    tiles,
    blocks,
    num_tokens,
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
    tile = tiles + 4 * tl.program_id(0)
    first, begin, middle, end = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    own = tl.arange(0, TILE)
    rows = first + own
    inside = rows < num_tokens
    row_depths = tl.load(depths + rows, mask=inside, other=0)
    kv_head = head // GROUP
    key_base, value_base = keys + kv_head * key_head_stride, values + kv_head * value_head_stride
    out_offset = head * out_head_stride
    query = load_rows(queries + head * query_head_stride, first, own, num_tokens, query_stride, HEAD_DIM, COLUMNS, True)
    out = load_rows(outs + out_offset, first, own, num_tokens, out_stride, HEAD_DIM, COLUMNS, True)
    grad_out = load_rows(grad_outs + out_offset, first, own, num_tokens, out_stride, HEAD_DIM, COLUMNS, True)
    delta = tl.sum(out.to(tl.float32) * grad_out.to(tl.float32), 1)
    row = head * logsumexp_head_stride + rows
    tl.store(deltas + row, delta, mask=inside)
    # Rows beyond the last token weigh nothing: exp2(-inf) is 0.
    row_logsumexp = tl.load(logsumexp + row, mask=inside, other=float("inf")) * LOG2_E
    scale = softmax_scale * LOG2_E

    grad_query = tl.zeros([TILE, COLUMNS], tl.float32)
    block = tl.arange(0, INNER)
    for entry in range(begin, end):
        start = tl.load(blocks + entry)
        key = load_rows(key_base, start, block, num_tokens, key_stride, HEAD_DIM, COLUMNS, True)
        value = load_rows(value_base, start, block, num_tokens, value_stride, HEAD_DIM, COLUMNS, True)
        scores = product(query, tl.trans(key), UPCAST)
        weights = tl.math.exp2(scores * scale - row_logsumexp[:, None])
        if entry >= middle:
            columns = (start + block)[None, :]
            seen = _seen(ends, depths, rows[:, None], columns, row_depths[:, None], num_tokens, window, WINDOWED)
            weights = tl.where(seen, weights, 0.0)
        grad_query = query_step(grad_query, weights, grad_out, key, value, delta, UPCAST)
    grad_base = grad_queries + out_offset
    store_rows(grad_base, first, own, num_tokens, out_stride, grad_query * softmax_scale, HEAD_DIM, COLUMNS)


@triton.jit
def tree_grad_keys(
    queries,
    keys,
    values,
    grad_outs,
    grad_keys,
    grad_values,
    logsumexp,
    deltas,
    ends,
    depths,
    tiles,
    blocks,
    num_tokens,
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
    """Grid [tiles of keys, key/value heads]. grad_keys and grad_values share their strides; scores are transposed."""
    kv_head = tl.program_id(1)
    tile = tiles + 4 * tl.program_id(0)
    first, begin, middle, end = tl.load(tile), tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    own = tl.arange(0, TILE)
    columns = (first + own)[:, None]
    key_base, value_base = keys + kv_head * key_head_stride, values + kv_head * value_head_stride
    key = load_rows(key_base, first, own, num_tokens, key_stride, HEAD_DIM, COLUMNS, True)
    value = load_rows(value_base, first, own, num_tokens, value_stride, HEAD_DIM, COLUMNS, True)
    scale = softmax_scale * LOG2_E

    grad_key = tl.zeros([TILE, COLUMNS], tl.float32)
    grad_value = tl.zeros([TILE, COLUMNS], tl.float32)
    block = tl.arange(0, INNER)
    for member in range(GROUP):
        head = kv_head * GROUP + member
        query_base, grad_out_base = queries + head * query_head_stride, grad_outs + head * out_head_stride
        for entry in range(begin, end):
            start = tl.load(blocks + entry)
            query = load_rows(query_base, start, block, num_tokens, query_stride, HEAD_DIM, COLUMNS, True)
            grad_out = load_rows(grad_out_base, start, block, num_tokens, out_stride, HEAD_DIM, COLUMNS, True)
            row = start + block
            inside = row < num_tokens
            at = head * logsumexp_head_stride + row
            row_logsumexp = tl.load(logsumexp + at, mask=inside, other=float("inf")) * LOG2_E
            delta = tl.load(deltas + at, mask=inside, other=0.0)
            scores = product(key, tl.trans(query), UPCAST)
            weights = tl.math.exp2(scores * scale - row_logsumexp[None, :])
            if entry >= middle:
                row_depths = tl.load(depths + row, mask=inside, other=0)
                seen = _seen(ends, depths, row[None, :], columns, row_depths[None, :], num_tokens, window, WINDOWED)
                weights = tl.where(seen, weights, 0.0)
            grad_key, grad_value = key_step(grad_key, grad_value, weights, query, grad_out, value, delta, UPCAST)
    offset = kv_head * grad_head_stride
    store_rows(grad_keys + offset, first, own, num_tokens, grad_stride, grad_key * softmax_scale, HEAD_DIM, COLUMNS)
    store_rows(grad_values + offset, first, own, num_tokens, grad_stride, grad_value, HEAD_DIM, COLUMNS)
