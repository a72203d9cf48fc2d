"""What the attention kernels share: loads of rows, and which keys and queries of a tile can see each other.

Query row i of a document stands at position i + shift among its keys, where shift = keys - queries: the last query
stands at the last key. It sees keys j with 0 <= i + shift - j < window.
"""

# pyright: reportGeneralTypeIssues=false
# Types of Triton's functions are those of the compiler, not of their callers here.
import triton
import triton.language as tl

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def begin_of(base, start, stride, head, head_stride):
    """Where a document's rows of one head begin: ``start`` rows into the pack."""
    return base + tl.cast(start, tl.int64) * stride + head * head_stride


@triton.jit
def visible(distance, window, WINDOWED: tl.constexpr):
    """Which scores count: ``distance`` is the query's position less the key's."""
    seen = distance >= 0
    if WINDOWED:
        seen = seen & (distance < window)
    return seen


@triton.jit
def load_rows(base, first, rows, count, stride, HEAD_DIM: tl.constexpr, COLUMNS: tl.constexpr, MASKED: tl.constexpr):
    """[rows, COLUMNS] of a matrix whose rows are ``stride`` apart, from row ``first`` on; 0 beyond ``count`` rows and
    HEAD_DIM columns. MASKED false: all rows exist."""
    columns = tl.arange(0, COLUMNS)
    # The block's start is in 64 bits: a pack of 131072 tokens x 128 heads x 128 channels passes 2^31.
    pointers = base + tl.cast(first, tl.int64) * stride + rows[:, None] * stride + columns[None, :]
    if MASKED:
        mask = (first + rows < count)[:, None]
        if HEAD_DIM != COLUMNS:
            mask = mask & (columns < HEAD_DIM)[None, :]
        return tl.load(pointers, mask=mask, other=0.0)
    else:
        if HEAD_DIM != COLUMNS:
            return tl.load(pointers, mask=(columns < HEAD_DIM)[None, :], other=0.0)
        else:
            return tl.load(pointers)


@triton.jit
def store_rows(base, first, rows, count, stride, value, HEAD_DIM: tl.constexpr, COLUMNS: tl.constexpr):
    """The inverse of ``load_rows``, MASKED."""
    columns = tl.arange(0, COLUMNS)
    pointers = base + tl.cast(first, tl.int64) * stride + rows[:, None] * stride + columns[None, :]
    mask = (first + rows < count)[:, None]
    if HEAD_DIM != COLUMNS:
        mask = mask & (columns < HEAD_DIM)[None, :]
    tl.store(pointers, value.to(base.dtype.element_ty), mask=mask)


@triton.jit
def product(a, b, UPCAST: tl.constexpr):
    """a @ b in float32. UPCAST: Triton's interpreter multiplies bfloat16 bit patterns, so it is given float32."""
    if UPCAST:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        return tl.dot(a, b, input_precision="ieee")


@triton.jit
def tile_of(tiles, cu_queries, cu_keys):
    """The document and the first row of this program's tile: (first row, start of queries, number of queries,
    start of keys, number of keys)."""
    index = tl.program_id(0)
    document = tl.load(tiles + 2 * index)
    first = tl.load(tiles + 2 * index + 1)
    query_start = tl.load(cu_queries + document)
    num_queries = tl.load(cu_queries + document + 1) - query_start
    key_start = tl.load(cu_keys + document)
    num_keys = tl.load(cu_keys + document + 1) - key_start
    return first, query_start, num_queries, key_start, num_keys


@triton.jit
def keys_of(first, shift, num_keys, window, TILE: tl.constexpr, INNER: tl.constexpr, WINDOWED: tl.constexpr):
    """Keys that the TILE queries from ``first`` on see: blocks of INNER keys in [low, high), of which those in
    [full_low, full_high) are seen by every query and need no mask."""
    high = tl.minimum(num_keys, first + TILE + shift)
    full_high = (first + shift + 1) // INNER * INNER
    low = 0
    full_low = 0
    if WINDOWED:
        low = tl.maximum(first + shift - window + 1, 0) // INNER * INNER
        full_low = tl.cdiv(tl.maximum(first + TILE + shift - window, 0), INNER) * INNER
        full_low = tl.maximum(full_low, low)
    full_high = tl.maximum(full_high, low)
    full_low = tl.minimum(full_low, full_high)
    return low, full_low, full_high, high


@triton.jit
def queries_of(first, shift, num_queries, window, TILE: tl.constexpr, INNER: tl.constexpr, WINDOWED: tl.constexpr):
    """Queries that see the TILE keys from ``first`` on, as ``keys_of`` says it of keys."""
    low = tl.maximum(first - shift, 0) // INNER * INNER
    high = num_queries
    full_high = num_queries
    if WINDOWED:
        high = tl.minimum(num_queries, first + TILE - 1 + window - shift)
        full_high = tl.minimum(num_queries, tl.maximum(first + window - shift, 0))
    full_low = tl.cdiv(tl.maximum(first + TILE - 1 - shift, 0), INNER) * INNER
    full_high = tl.maximum(full_high // INNER * INNER, low)
    full_low = tl.minimum(tl.maximum(full_low, low), full_high)
    return low, full_low, full_high, high
