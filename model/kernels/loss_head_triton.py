"""Head and loss in one: logits exist only as tiles of a matrix product, in registers.

``head_statistics`` reduces each tile to what log-probability and entropy need; ``head_grad_logits`` makes the tiles
again and turns them into the gradient of a chunk of the vocabulary, which library products then use twice.
"""

# pyright: reportGeneralTypeIssues=false
# Types of Triton's functions are those of the compiler, not of their callers here.
import triton
import triton.language as tl

from .tiles_triton import LN_2, LOG2_E, product


@triton.jit
def _logits(
    hidden,
    weight,
    rows,
    entries,
    num_tokens,
    vocab_size,
    hidden_stride,
    weight_stride,
    width,
    TILE: tl.constexpr,
    VOCAB: tl.constexpr,
    INNER: tl.constexpr,
    EVEN: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """[TILE, VOCAB] float32. Rows and entries beyond the end repeat the last one, which needs no mask; the caller
    drops them. EVEN: the width is a multiple of INNER."""
    channels = tl.arange(0, INNER)
    hidden_row = hidden + tl.cast(tl.minimum(rows, num_tokens - 1), tl.int64)[:, None] * hidden_stride
    weight_row = weight + tl.cast(tl.minimum(entries, vocab_size - 1), tl.int64)[:, None] * weight_stride
    logits = tl.zeros([TILE, VOCAB], tl.float32)
    for start in range(0, width, INNER):
        channel = start + channels
        if EVEN:
            x = tl.load(hidden_row + channel[None, :])
            w = tl.load(weight_row + channel[None, :])
        else:
            x = tl.load(hidden_row + channel[None, :], mask=(channel < width)[None, :], other=0.0)
            w = tl.load(weight_row + channel[None, :], mask=(channel < width)[None, :], other=0.0)
        logits += product(x, tl.trans(w), UPCAST)
    return logits


@triton.jit
def head_statistics(
    hidden,
    weight,
    targets,
    temperatures,
    logsumexp,
    means,
    chosen,
    num_tokens,
    vocab_size,
    hidden_stride,
    weight_stride,
    width,
    split_size,
    TOGETHER: tl.constexpr,
    SPLITS: tl.constexpr,
    TILE: tl.constexpr,
    VOCAB: tl.constexpr,
    INNER: tl.constexpr,
    EVEN: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid [tiles of tokens x SPLITS]. For each token and each split of the vocabulary, over the logits z divided by
    the temperature: log-sum-exp, mean of z under their softmax, and z of the target where the split has it, else 0;
    each [SPLITS, T] float32, nats.

    TOGETHER tiles of tokens run side by side, for all splits, so that their hidden states stay in the L2 cache and
    the weights are read from memory once a group.
    """
    index = tl.program_id(0)
    group = index // (TOGETHER * SPLITS)
    split = index // TOGETHER % SPLITS
    tile = group * TOGETHER + index % TOGETHER
    if tile * TILE < num_tokens:
        rows = tile * TILE + tl.arange(0, TILE)
        inside = rows < num_tokens
        target = tl.load(targets + rows, mask=inside, other=-1)
        scale = LOG2_E / tl.load(temperatures + rows, mask=inside, other=1.0)
        row_max = tl.full([TILE], float("-inf"), tl.float32)
        total = tl.zeros([TILE], tl.float32)
        weighted = tl.zeros([TILE], tl.float32)
        picked = tl.zeros([TILE], tl.float32)
        high = tl.minimum((split + 1) * split_size, vocab_size)
        for start in range(split * split_size, high, VOCAB):
            entries = start + tl.arange(0, VOCAB)
            logits = _logits(
                *(hidden, weight, rows, entries, num_tokens, vocab_size, hidden_stride, weight_stride, width),
                *(TILE, VOCAB, INNER, EVEN, UPCAST),
            )
            z = logits * scale[:, None]
            picked += tl.sum(tl.where(entries[None, :] == target[:, None], z, 0.0), 1)
            exists = (entries < high)[None, :]
            new_max = tl.maximum(row_max, tl.max(tl.where(exists, z, float("-inf")), 1))
            share = tl.where(exists, tl.math.exp2(z - new_max[:, None]), 0.0)
            shrink = tl.math.exp2(row_max - new_max)
            total = total * shrink + tl.sum(share, 1)
            weighted = weighted * shrink + tl.sum(share * z, 1)
            row_max = new_max
        at = split * num_tokens + rows
        tl.store(logsumexp + at, (row_max + tl.math.log2(total)) * LN_2, mask=inside)
        tl.store(means + at, weighted / total * LN_2, mask=inside)
        tl.store(chosen + at, picked * LN_2, mask=inside)


@triton.jit
def head_grad_logits(
    hidden,
    weight,
    targets,
    temperatures,
    logsumexp,
    means,
    grad_logprobs,
    grad_entropies,
    grad_logits,
    num_tokens,
    vocab_size,
    hidden_stride,
    weight_stride,
    width,
    first_entry,
    grad_stride,
    TOGETHER: tl.constexpr,
    TILE: tl.constexpr,
    VOCAB: tl.constexpr,
    INNER: tl.constexpr,
    EVEN: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Grid [tiles of tokens x tiles of the chunk]. The gradient of the logits of ``vocab_size`` entries from
    ``first_entry`` on, whose rows of the head ``weight`` holds: with p their softmax and z the logits over the
    temperature, d logprob / dz = [target] - p and d entropy / dz = -p (z - mean of z)."""
    index = tl.program_id(0)
    num_chunk_tiles = tl.cdiv(vocab_size, VOCAB)
    group = index // (TOGETHER * num_chunk_tiles)
    tile = group * TOGETHER + index % TOGETHER
    if tile * TILE < num_tokens:
        rows = tile * TILE + tl.arange(0, TILE)
        entries = index // TOGETHER % num_chunk_tiles * VOCAB + tl.arange(0, VOCAB)
        inside = rows < num_tokens
        logits = _logits(
            *(hidden, weight, rows, entries, num_tokens, vocab_size, hidden_stride, weight_stride, width),
            *(TILE, VOCAB, INNER, EVEN, UPCAST),
        )
        target = tl.load(targets + rows, mask=inside, other=-1)
        temperature = tl.load(temperatures + rows, mask=inside, other=1.0)
        row_logsumexp = tl.load(logsumexp + rows, mask=inside, other=0.0)
        mean = tl.load(means + rows, mask=inside, other=0.0)
        grad_logprob = tl.load(grad_logprobs + rows, mask=inside, other=0.0)
        grad_entropy = tl.load(grad_entropies + rows, mask=inside, other=0.0)
        z = logits / temperature[:, None]
        share = tl.math.exp2((z - row_logsumexp[:, None]) * LOG2_E)
        is_target = (first_entry + entries)[None, :] == target[:, None]
        grad = -share * (grad_logprob[:, None] + grad_entropy[:, None] * (z - mean[:, None]))
        grad = tl.where(is_target, grad + grad_logprob[:, None], grad) / temperature[:, None]
        at = grad_logits + tl.cast(rows, tl.int64)[:, None] * grad_stride + entries[None, :]
        mask = inside[:, None] & (entries < vocab_size)[None, :]
        tl.store(at, grad.to(grad_logits.dtype.element_ty), mask=mask)
