"""Log-probabilities and entropies straight from hidden states, against plain float64."""

import torch
from torch import Tensor

from verigym.model.kernels.loss_head import fused_logprobs, head_blocks
from verigym.model.kernels.reference import reference_logprobs

from .conftest import DEVICE, assert_near, randn


def _check(num_tokens: int, width: int, vocab_size: int, max_elements: int, dtype: torch.dtype, tolerance: float):
    hidden, weight = (
        randn(*shape, seed=seed).to(dtype).double() for seed, shape in _shapes(num_tokens, width, vocab_size)
    )
    targets = torch.randint(0, vocab_size, (num_tokens,), generator=torch.Generator().manual_seed(2))
    temperatures = torch.linspace(0.5, 1.5, num_tokens, dtype=torch.float64)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    exact = reference_logprobs(*leaves, targets, temperatures)
    upstream = [randn(num_tokens, seed=seed) for seed in (3, 4)]
    exact_grads = torch.autograd.grad(exact, leaves, upstream)

    inputs = [leaf.detach().to(DEVICE, dtype).requires_grad_() for leaf in leaves]
    got = fused_logprobs(*inputs, targets.to(DEVICE), temperatures.float().to(DEVICE), max_elements)[:2]
    grads = torch.autograd.grad(got, inputs, [x.float().to(DEVICE) for x in upstream])
    for value, expected in zip((*got, *grads), (*(x.detach() for x in exact), *exact_grads), strict=True):
        assert_near(value, expected, tolerance)
    assert got[0].dtype == torch.float32
    assert [grad.dtype for grad in grads] == [dtype, dtype]


def _shapes(num_tokens: int, width: int, vocab_size: int) -> list[tuple[int, tuple[int, int]]]:
    return [(0, (num_tokens, width)), (1, (vocab_size, width))]


def test_one_token_and_a_small_vocabulary() -> None:
    _check(1, 16, 5, 10_000, torch.float32, 2e-6)


def test_chunks_of_the_vocabulary_and_ragged_edges() -> None:
    """Two tiles of tokens, more tiles of the vocabulary than splits, three chunks, a width that no block divides. The
    entropy is a difference of numbers near 25, hence the tolerance."""
    tile, vocab, _ = head_blocks(torch.float32)
    _check(tile + 1, 24, 8 * vocab + 3, 4 * vocab * (tile + 1), torch.float32, 2e-5)


def test_low_precision() -> None:
    _check(5, 32, 40, 10_000, torch.bfloat16, 1e-2)


def test_a_loss_of_the_log_probabilities_alone() -> None:
    """The entropy's gradient is then absent, not zero."""
    hidden, weight = randn(3, 16, seed=0), randn(20, 16, seed=1)
    targets, temperatures = torch.tensor([0, 19, 7]), torch.ones(3)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    exact = torch.autograd.grad(reference_logprobs(*leaves, targets, temperatures)[0].sum(), leaves)
    inputs = [leaf.detach().float().to(DEVICE).requires_grad_() for leaf in leaves]
    logprobs = fused_logprobs(*inputs, targets.to(DEVICE), temperatures.to(DEVICE), 1000)[0]
    for value, expected in zip(torch.autograd.grad(logprobs.sum(), inputs), exact):
        assert_near(value, expected, 2e-6)


def test_no_token() -> None:
    hidden = torch.zeros(0, 16, device=DEVICE, requires_grad=True)
    weight = torch.ones(20, 16, device=DEVICE, requires_grad=True)
    empty = torch.zeros(0, device=DEVICE)
    logprobs, entropy, _, _ = fused_logprobs(hidden, weight, empty.long(), empty, 1000)
    assert logprobs.shape == entropy.shape == (0,)
    grads: tuple[Tensor, ...] = torch.autograd.grad(logprobs.sum(), (hidden, weight))
    assert not grads[1].any()
