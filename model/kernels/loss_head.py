"""Log-probabilities and entropies straight from hidden states and the head, as a torch operator.

Shapes: T tokens, D width, V vocabulary.
"""

import torch
from torch import Tensor

from .launch import interpreted, launch

# Splits of the vocabulary, and tiles of tokens that run side by side: together they fill a Hopper GPU.
SPLITS = 8
TOGETHER = 16
# Elements of the gradient of the logits that exist at once: 128 MiB in bfloat16.
MAX_ELEMENTS = 64 * 2**20


def head_blocks(dtype: torch.dtype) -> tuple[int, int, tuple[int, int, int]]:
    """(tokens a program takes, entries of the vocabulary at a time, (channels at a time, warps, stages))."""
    if interpreted():
        return 16, 16, (16, 4, 2)
    return (128, 128, (64, 8, 3)) if dtype.itemsize == 2 else (64, 64, (32, 4, 2))


@torch.library.custom_op("verigym::fused_logprobs", mutates_args=())
def fused_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperatures: Tensor, max_elements: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Statistics of softmax(hidden @ weight.T / temperature), without the logits.

    Args:
        hidden: [T, D]; weight: [V, D], of one dtype, channels contiguous. targets: [T] int64.
        temperatures: [T] float32, > 0; they get no gradient.
        max_elements: most elements of the logits' gradient that the backward pass holds at once.
    Returns:
        (log-probability of the target [T], entropy [T], log-sum-exp [T], mean logit [T]), float32, nats. The last two
        are for the backward pass and get no gradient.
    """
    from .loss_head_triton import head_statistics

    num_tokens, width = hidden.shape
    vocab_size = weight.shape[0]
    tile, vocab, blocks = head_blocks(hidden.dtype)
    split_size = -(-vocab_size // (SPLITS * vocab)) * vocab
    splits = -(-vocab_size // split_size)
    stats = torch.empty(3, splits, num_tokens, dtype=torch.float32, device=hidden.device)
    if num_tokens:
        num_tiles = -(-num_tokens // tile)
        launch(
            head_statistics,
            (-(-num_tiles // TOGETHER) * TOGETHER * splits,),
            *(hidden, weight, targets, temperatures, *stats),
            *(num_tokens, vocab_size, hidden.stride(0), weight.stride(0), width, split_size),
            blocks=blocks,
            **{"TOGETHER": TOGETHER, "SPLITS": splits, "TILE": tile, "VOCAB": vocab, "EVEN": width % blocks[0] == 0},
        )
    by_split, means, chosen = stats
    logsumexp = by_split.logsumexp(dim=0)
    mean = ((by_split - logsumexp).exp_() * means).sum(dim=0)
    return chosen.sum(dim=0) - logsumexp, logsumexp - mean, logsumexp, mean


@fused_logprobs.register_fake
def _(hidden, weight, targets, temperatures, max_elements):
    return tuple(torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device) for _ in range(4))


@torch.library.custom_op("verigym::fused_logprobs_backward", mutates_args=())
def fused_logprobs_backward(
    grad_logprobs: Tensor,
    grad_entropies: Tensor,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperatures: Tensor,
    logsumexp: Tensor,
    mean: Tensor,
    max_elements: int,
) -> tuple[Tensor, Tensor]:
    """(gradient of hidden [T, D], of weight [V, D]), by chunks of the vocabulary that hold at most ``max_elements``."""
    num_tokens, width = hidden.shape
    vocab_size = weight.shape[0]
    _, vocab, _ = head_blocks(hidden.dtype)
    grad_weight = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
    if not num_tokens:
        return torch.empty_like(hidden), grad_weight.zero_()
    grad_hidden = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
    chunk = min(max(max_elements // num_tokens // vocab, 1) * vocab, vocab_size)
    buffer = torch.empty(num_tokens, chunk, dtype=hidden.dtype, device=hidden.device)
    for first in range(0, vocab_size, chunk):
        part = weight[first : first + chunk]
        grad_logits = buffer[:, : part.shape[0]]
        _grad_logits(
            *(grad_logprobs, grad_entropies, hidden, part, targets, temperatures, logsumexp, mean),
            *(first, grad_logits),
        )
        _add_product(grad_hidden, grad_logits, part)
        torch.mm(grad_logits.T, hidden, out=grad_weight[first : first + chunk])
    return grad_hidden.to(hidden.dtype), grad_weight


@fused_logprobs_backward.register_fake
def _(grad_logprobs, grad_entropies, hidden, weight, targets, temperatures, logsumexp, mean, max_elements):
    # What lives only inside is allocated here too, so that a plan of memory sees its peak.
    vocab = head_blocks(hidden.dtype)[1]
    chunk = min(max(max_elements // max(hidden.shape[0], 1) // vocab, 1) * vocab, weight.shape[0])
    inside = torch.empty(hidden.shape[0], chunk, dtype=hidden.dtype, device=hidden.device)
    float32 = torch.empty(hidden.shape, dtype=torch.float32, device=hidden.device)
    del inside, float32
    return (
        torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device),
        torch.empty(weight.shape, dtype=weight.dtype, device=weight.device),
    )


def _grad_logits(
    grad_logprobs: Tensor,
    grad_entropies: Tensor,
    hidden: Tensor,
    part: Tensor,
    targets: Tensor,
    temperatures: Tensor,
    logsumexp: Tensor,
    mean: Tensor,
    first: int,
    out: Tensor,
) -> None:
    from .loss_head_triton import head_grad_logits

    num_tokens, width = hidden.shape
    tile, vocab, blocks = head_blocks(hidden.dtype)
    num_tiles, num_chunk_tiles = -(-num_tokens // tile), -(-part.shape[0] // vocab)
    launch(
        head_grad_logits,
        (-(-num_tiles // TOGETHER) * TOGETHER * num_chunk_tiles,),
        *(hidden, part, targets, temperatures, logsumexp, mean, grad_logprobs, grad_entropies, out),
        *(num_tokens, part.shape[0], hidden.stride(0), part.stride(0), width, first, out.stride(0)),
        blocks=blocks,
        **{"TOGETHER": TOGETHER, "TILE": tile, "VOCAB": vocab, "EVEN": width % blocks[0] == 0},
    )


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b in float32: rounding each chunk's product to bfloat16 would add up."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    elif a.is_cuda:
        total += torch.mm(a, b, out_dtype=torch.float32)
    else:
        total.addmm_(a.float(), b.float())


def _save(ctx, inputs, output) -> None:
    hidden, weight, targets, temperatures, max_elements = inputs
    _, _, logsumexp, mean = output
    ctx.save_for_backward(hidden, weight, targets, temperatures, logsumexp, mean)
    ctx.max_elements = max_elements
    ctx.mark_non_differentiable(logsumexp, mean)


def _backward(ctx, grad_logprobs, grad_entropies, *_):
    saved = ctx.saved_tensors
    zeros = torch.zeros_like(saved[-1])
    grads = [(zeros if grad is None else grad.contiguous()) for grad in (grad_logprobs, grad_entropies)]
    return (*fused_logprobs_backward(*grads, *saved, ctx.max_elements), None, None, None)


fused_logprobs.register_autograd(_backward, setup_context=_save)
