"""The attention kernels against the float64 reference, by Triton's interpreter where there is no GPU."""

# pyright: reportCallIssue=false
# Parts of tensors are unpacked as arguments; their number is known to who reads.

import pytest
import torch
from torch import Tensor

from verigym.model.attention_documents import Documents
from verigym.model.kernels.attention import varlen_attention
from verigym.model.kernels.reference import reference_attention

from .conftest import DEVICE, assert_near, randn

RAGGED = [5, 0, 1, 33, 16, 2]
HEAD_DIM = 16


def kernel(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], keys: list[int], window: int | None, tile: int):
    queries, others = (Documents.from_lengths(each, device=q.device) for each in (lengths, keys))
    return varlen_attention(
        *(q, k, v, queries.cu_seqlens, others.cu_seqlens),
        *(queries.tiles(tile, of="queries"), others.tiles(tile, of="keys"), window or 0, q.shape[-1] ** -0.5, tile),
    )


def check(
    lengths: list[int],
    *,
    group: int,
    window: int | None,
    tile: int,
    keys: list[int] | None = None,
    dtype: torch.dtype = torch.float32,
    head_dim: int = HEAD_DIM,
    tolerance: float = 2e-6,
) -> None:
    keys = keys or lengths
    kv_heads = 2 if group == 1 and len(lengths) > 1 else 1
    shapes = [(sum(lengths), kv_heads * group, head_dim), *[(sum(keys), kv_heads, head_dim)] * 2]
    leaves = [randn(*shape, seed=index).to(dtype).double().requires_grad_() for index, shape in enumerate(shapes)]
    upstream = randn(*shapes[0], seed=3).to(dtype).double()
    out, logsumexp = reference_attention(*leaves, lengths, keys, window)
    exact = (out.detach(), logsumexp.detach(), *torch.autograd.grad(out, leaves, upstream))

    inputs = [leaf.detach().to(DEVICE, dtype).requires_grad_() for leaf in leaves]
    got, got_logsumexp = kernel(*inputs, lengths, keys, window, tile)
    assert got.dtype == dtype
    assert got_logsumexp.dtype == torch.float32
    grads = torch.autograd.grad(got, inputs, upstream.to(DEVICE, dtype))
    for value, expected in zip((got, got_logsumexp, *grads), exact, strict=True):
        assert_near(value, expected, tolerance)


@pytest.mark.parametrize("window", [None, 4, 16])
@pytest.mark.parametrize("group", [1, 6])
@pytest.mark.parametrize("length", [1, 15, 16, 17])
def test_lengths_about_one_tile(length: int, group: int, window: int | None) -> None:
    check([length], group=group, window=window, tile=16)


@pytest.mark.parametrize("window", [None, 16])  # far less than a tile, as 4 is too
@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("length", [127, 128, 129])
def test_lengths_about_a_production_tile(length: int, group: int, window: int | None) -> None:
    check([length], group=group, window=window, tile=128)


@pytest.mark.parametrize("window", [None, 4, 16])
@pytest.mark.parametrize("group", [1, 3])
def test_ragged_packs(group: int, window: int | None) -> None:
    check(RAGGED, group=group, window=window, tile=16)


@pytest.mark.parametrize("window", [33, 34, 48])
def test_windows_wider_than_tiles(window: int) -> None:
    """Blocks that need no mask lie between those at the two ends of a window."""
    check([101, 7], group=2, window=window, tile=16)


def test_low_precision_and_a_head_size_that_is_no_power_of_two() -> None:
    check(RAGGED, group=2, window=4, tile=16, dtype=torch.bfloat16, head_dim=24, tolerance=1e-2)


@pytest.mark.parametrize("window", [None, 5])
def test_queries_at_the_end_of_longer_keys(window: int | None) -> None:
    check([3, 0, 17, 1], keys=[20, 4, 17, 40], group=2, window=window, tile=16)


def test_two_runs_give_the_same_bits() -> None:
    lengths = [5, 0, 17]
    inputs = [randn(sum(lengths), heads, HEAD_DIM, seed=heads).float().to(DEVICE) for heads in (3, 1, 1)]
    runs = []
    for _ in range(2):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out, _ = kernel(*leaves, lengths, lengths, None, 16)
        runs.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    assert all(torch.equal(*pair) for pair in zip(*runs))


def test_strided_heads_are_read_in_place() -> None:
    """q, k and v as the decoder hands them over: slices of one projection."""
    fused = randn(17, 5, HEAD_DIM, seed=0).float().to(DEVICE)
    parts = fused.split([3, 1, 1], dim=1)
    got, _ = kernel(*parts, [17], [17], 4, 16)
    expected, _ = kernel(*(part.contiguous() for part in parts), [17], [17], 4, 16)
    assert torch.equal(got, expected)


def test_an_empty_pack() -> None:
    leaves = [torch.zeros(0, heads, HEAD_DIM, device=DEVICE, requires_grad=True) for heads in (2, 1, 1)]
    out, logsumexp = kernel(*leaves, [0, 0], [0, 0], None, 16)
    assert out.shape == (0, 2, HEAD_DIM)
    assert logsumexp.shape == (2, 0)
    assert [grad.shape[0] for grad in torch.autograd.grad(out.sum(), leaves)] == [0, 0, 0]
