"""Attention of one new token of each sequence to keys and values in pages.

A sequence is cut into splits of a fixed number of tokens, counted from its start. A program takes one split for the
query heads of one key/value head; a second kernel joins the splits of a sequence in their order. What a sequence gets
depends on its own tokens alone, never on how long the others of the batch are (Flash-Decoding splits by the batch).
"""

# pyright: reportGeneralTypeIssues=false
# Types of Triton's functions are those of the compiler, not of their callers here.
import triton
import triton.language as tl

from .tiles_triton import LN_2, product


@triton.jit
def decode_split(
    queries,
    keys,
    values,
    partials,
    logsumexp,
    page_table,
    lengths,
    query_stride,
    query_head_stride,
    key_page_stride,
    key_stride,
    key_head_stride,
    value_page_stride,
    value_stride,
    value_head_stride,
    num_splits,
    page_table_stride,
    page_size,
    scale,
    window,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
    WINDOWED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid [splits, key/value heads, sequences]. partials [B, splits, H, K] and logsumexp [B, splits, H] in base 2;
    ``scale`` is in base 2 too. ROWS pads GROUP to what a matrix product takes."""
    split = tl.program_id(0)
    kv_head = tl.program_id(1)
    sequence = tl.program_id(2)
    length = tl.load(lengths + sequence)
    low = split * SPLIT
    high = tl.minimum(low + SPLIT, length)
    oldest = 0
    if WINDOWED:
        oldest = tl.maximum(length - window, 0)
        low = tl.maximum(low, oldest // INNER * INNER)
    if low < high:
        rows = tl.arange(0, ROWS)
        columns = tl.arange(0, COLUMNS)
        block = tl.arange(0, INNER)
        inside = (rows < GROUP)[:, None] & (columns < HEAD_DIM)[None, :]
        heads = kv_head * GROUP + rows
        query_at = queries + sequence * query_stride + heads[:, None] * query_head_stride + columns[None, :]
        query = tl.load(query_at, mask=inside, other=0.0)
        total = tl.zeros([ROWS], tl.float32)
        row_max = tl.full([ROWS], float("-inf"), tl.float32)
        out = tl.zeros([ROWS, COLUMNS], tl.float32)
        for start in range(low, high, INNER):
            token = start + block
            seen = (token >= oldest) & (token < high)
            page = tl.load(page_table + sequence * page_table_stride + token // page_size, mask=seen, other=0)
            page = tl.cast(page, tl.int64)
            mask = seen[:, None] & (columns < HEAD_DIM)[None, :]
            key_row = page * key_page_stride + (token % page_size) * key_stride + kv_head * key_head_stride
            key = tl.load(keys + key_row[:, None] + columns[None, :], mask=mask, other=0.0)
            scores = product(query, tl.trans(key), UPCAST)
            scores = tl.where(seen[None, :], scores, float("-inf"))
            # The first block of a split has at least one token that is seen.
            new_max = tl.maximum(row_max, tl.max(scores, 1) * scale)
            weights = tl.math.exp2(scores * scale - new_max[:, None])
            shrink = tl.math.exp2(row_max - new_max)
            total = total * shrink + tl.sum(weights, 1)
            value_row = page * value_page_stride + (token % page_size) * value_stride + kv_head * value_head_stride
            value = tl.load(values + value_row[:, None] + columns[None, :], mask=mask, other=0.0)
            out = out * shrink[:, None] + product(weights.to(value.dtype), value, UPCAST)
            row_max = new_max
        num_heads = tl.num_programs(1) * GROUP
        row = (tl.cast(sequence, tl.int64) * num_splits + split) * num_heads + heads
        tl.store(partials + row[:, None] * HEAD_DIM + columns[None, :], out / total[:, None], mask=inside)
        tl.store(logsumexp + row, row_max + tl.math.log2(total), mask=rows < GROUP)


@triton.jit
def decode_join(
    partials,
    logsumexp,
    outs,
    out_logsumexp,
    lengths,
    num_splits,
    window,
    HEAD_DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    INNER: tl.constexpr,
    WINDOWED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid [query heads, sequences]. Joins the splits that ``decode_split`` wrote, in their order."""
    head = tl.program_id(0)
    sequence = tl.program_id(1)
    num_heads = tl.num_programs(0)
    columns = tl.arange(0, COLUMNS)
    length = tl.load(lengths + sequence)
    first = 0
    if WINDOWED:
        first = tl.maximum(length - window, 0) // SPLIT
    out = tl.zeros([COLUMNS], tl.float32)
    # Not -inf, so that the first step subtracts numbers: below any score a float32 holds.
    total_max = -1.0e38
    total = 0.0
    for split in range(first, tl.cdiv(length, SPLIT)):
        row = (tl.cast(sequence, tl.int64) * num_splits + split) * num_heads + head
        part = tl.load(logsumexp + row)
        partial = tl.load(partials + row * HEAD_DIM + columns, mask=columns < HEAD_DIM, other=0.0)
        new_max = tl.maximum(total_max, part)
        shrink = tl.math.exp2(total_max - new_max)
        weight = tl.math.exp2(part - new_max)
        out = out * shrink + partial * weight
        total = total * shrink + weight
        total_max = new_max
    row = tl.cast(sequence, tl.int64) * num_heads + head
    # A sequence of length 0 gets zeros, and -inf for its log-sum-exp.
    out = out / tl.where(total == 0.0, 1.0, total)
    tl.store(outs + row * HEAD_DIM + columns, out.to(outs.dtype.element_ty), mask=columns < HEAD_DIM)
    joined = tl.where(total == 0.0, float("-inf"), total_max + tl.math.log2(tl.where(total == 0.0, 1.0, total)))
    tl.store(out_logsumexp + row, joined * LN_2)
