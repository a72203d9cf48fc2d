"""What the attention kernels do with one block, whatever says which blocks they meet: the running softmax of the
forward pass, and what a block adds to the gradients."""

# pyright: reportGeneralTypeIssues=false
# Types of Triton's functions are those of the compiler, not of their callers here.
import triton
import triton.language as tl

from .tiles_triton import LN_2, load_rows, product, store_rows


@triton.jit
def softmax_step(
    total,
    row_max,
    out,
    scores,
    value_base,
    start,
    block,
    count,
    stride,
    scale,
    HEAD_DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Take a block of keys into the running softmax. ``scores`` are not scaled; those masked out are -inf."""
    new_max = tl.maximum(row_max, tl.max(scores, 1) * scale)
    if MASKED:
        # A row may see nothing of this block, or nothing yet: -inf minus -inf is no number.
        pivot = tl.where(new_max == float("-inf"), 0.0, new_max)
    else:
        pivot = new_max
    weights = tl.math.exp2(scores * scale - pivot[:, None])
    shrink = tl.math.exp2(row_max - pivot)
    total = total * shrink + tl.sum(weights, 1)
    value = load_rows(value_base, start, block, count, stride, HEAD_DIM, COLUMNS, MASKED)
    out = out * shrink[:, None] + product(weights.to(value.dtype), value, UPCAST)
    return total, new_max, out


@triton.jit
def softmax_end(
    total,
    row_max,
    out,
    out_base,
    logsumexp_row,
    first,
    rows,
    count,
    stride,
    HEAD_DIM: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Store what the running softmax came to, and its log-sum-exp in nats."""
    # Only rows beyond the last one, which are not stored, can have seen nothing.
    total = tl.where(total == 0.0, 1.0, total)
    store_rows(out_base, first, rows, count, stride, out / total[:, None], HEAD_DIM, COLUMNS)
    tl.store(logsumexp_row, (row_max + tl.math.log2(total)) * LN_2, mask=first + rows < count)


@triton.jit
def query_step(grad_query, weights, grad_out, key, value, delta, UPCAST: tl.constexpr):
    """Add what a block of keys gives to the gradient of a tile of queries, yet to be scaled."""
    grad_weights = product(grad_out, tl.trans(value), UPCAST)
    grad_scores = weights * (grad_weights - delta[:, None])
    return grad_query + product(grad_scores.to(key.dtype), key, UPCAST)


@triton.jit
def key_step(grad_key, grad_value, weights, query, grad_out, value, delta, UPCAST: tl.constexpr):
    """Add what a block of queries gives to the gradients of a tile of keys, yet to be scaled, and values; weights are
    [keys, queries]."""
    grad_value += product(weights.to(grad_out.dtype), grad_out, UPCAST)
    grad_weights = product(value, tl.trans(grad_out), UPCAST)
    grad_scores = weights * (grad_weights - delta[None, :])
    grad_key += product(grad_scores.to(query.dtype), query, UPCAST)
    return grad_key, grad_value
