"""The tree kernels against a mask of all pairs in float64, by Triton's interpreter where there is no GPU."""

# pyright: reportCallIssue=false
# Parts of tensors are unpacked as arguments; their number is known to who reads.

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verigym.model.attention import attend
from verigym.model.attention_documents import SharedDocuments
from verigym.model.kernels.attention import Blocks, blocks_of
from verigym.model.kernels.reference import reference_tree_attention
from verigym.model.kernels.tree import tree_attention, tree_tables

from .conftest import DEVICE, assert_near, randn

HEAD_DIM = 16


def tree(*lengths: int | tuple[int, int]) -> SharedDocuments:
    """Documents in depth-first order: a number is one that shares nothing; (shared, own) goes on from the beginning of
    the one before."""
    paths: list[torch.Tensor] = []
    owns, count = [], 0
    for one in lengths:
        shared, own = one if isinstance(one, tuple) else (0, one)
        before = paths[-1][:shared] if shared else torch.arange(0)
        assert len(before) == shared
        paths.append(torch.cat([before, torch.arange(count, count + own)]).to(DEVICE))
        owns.append(own)
        count += own
    return SharedDocuments.from_paths(paths, owns)


TREES = {
    "a root alone": tree(17),
    "a group": tree(20, (11, 9), (11, 1), (11, 17)),
    "branches of branches": tree(20, (18, 5), (23, 16), (18, 3), (5, 12), (17, 0), (17, 2), 7, (7, 3), (2, 20)),
    "about a tile": tree(16, (16, 16), (16, 15), (31, 1)),
}


def kernel(q, k, v, documents: SharedDocuments, window: int | None, tile: int):
    tables = documents.tree(blocks_of(q.shape[-1], q.dtype, tile), window or 0)
    return tree_attention(*(q, k, v, documents.ends, documents.depths, *tables, window or 0, q.shape[-1] ** -0.5, tile))


@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("name", TREES)
def test_forward_and_backward(name: str, window: int | None) -> None:
    check(TREES[name], window, group=2 if window is None else 1)


def test_a_production_tile() -> None:
    check(tree(100, (90, 60)), 64, group=1, tile=128)


def test_low_precision_and_a_head_size_that_is_no_power_of_two() -> None:
    check(TREES["branches of branches"], 9, group=2, dtype=torch.bfloat16, head_dim=24, tolerance=1e-2)


def check(
    documents: SharedDocuments,
    window: int | None,
    *,
    group: int,
    tile: int = 16,
    dtype: torch.dtype = torch.float32,
    head_dim: int = HEAD_DIM,
    tolerance: float = 2e-6,
) -> None:
    count = documents.num_tokens
    shapes = [(count, 2 * group, head_dim), *[(count, 2, head_dim)] * 2]
    leaves = [randn(*shape, seed=index).to(dtype).double().requires_grad_() for index, shape in enumerate(shapes)]
    upstream = randn(*shapes[0], seed=3).to(dtype).double()
    where = (documents.ends.cpu(), documents.positions.cpu())
    out, logsumexp = reference_tree_attention(*leaves, *where, window)
    exact = (out.detach(), logsumexp.detach(), *torch.autograd.grad(out, leaves, upstream))

    inputs = [leaf.detach().to(DEVICE, dtype).requires_grad_() for leaf in leaves]
    got, got_logsumexp = kernel(*inputs, documents, window, tile)
    grads = torch.autograd.grad(got, inputs, upstream.to(DEVICE, dtype))
    for value, expected in zip((got, got_logsumexp, *grads), exact, strict=True):
        assert_near(value, expected, tolerance)


@pytest.mark.parametrize("window", [None, 6])
def test_every_backend_sees_the_same(window: int | None, launches: Counter[str]) -> None:
    """And that is what each document sees where it lies for itself."""
    documents = TREES["branches of branches"]
    q, k, v = (randn(documents.num_tokens, heads, HEAD_DIM, seed=heads).float().to(DEVICE) for heads in (4, 2, 2))
    found = {kind: attend(q, k, v, documents, window, backend=kind) for kind in ("triton", "sdpa", "reference")}
    assert launches == {"tree_forward": 1}
    for path in documents.paths:
        lone = SharedDocuments.from_paths([torch.arange(len(path), device=DEVICE)], [len(path)])
        expected = attend(q[path], k[path], v[path], lone, window, backend="reference")
        for kind, out in found.items():
            torch.testing.assert_close(out[path], expected, rtol=0, atol=1e-5, msg=kind)


def test_two_runs_give_the_same_bits() -> None:
    documents = TREES["branches of branches"]
    inputs = [randn(documents.num_tokens, heads, HEAD_DIM, seed=heads).float().to(DEVICE) for heads in (3, 1, 1)]
    runs = []
    for _ in range(2):
        leaves = [x.clone().requires_grad_() for x in inputs]
        out, _ = kernel(*leaves, documents, None, 16)
        runs.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    assert all(torch.equal(*pair) for pair in zip(*runs))


def test_an_empty_pack() -> None:
    leaves = [torch.zeros(0, heads, HEAD_DIM, device=DEVICE, requires_grad=True) for heads in (2, 1, 1)]
    out, logsumexp = kernel(*leaves, tree(0), None, 16)
    assert out.shape == (0, 2, HEAD_DIM)
    assert logsumexp.shape == (2, 0)
    assert [grad.shape[0] for grad in torch.autograd.grad(out.sum(), leaves)] == [0, 0, 0]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=9), st.integers(0, 7))
def test_tables_list_each_pair_once(shape: list[tuple[int, int]], window: int) -> None:
    """Every pair that sees each other is in a block of its tile, and a block that needs no mask has no other pair."""
    lengths, before = [], 0
    for shared, own in shape:
        lengths.append((min(shared, before), own))
        before = sum(lengths[-1])
    documents = tree(*lengths)
    count = documents.num_tokens
    ends, depths = documents.ends.cpu().numpy(), documents.depths.cpu().numpy()
    index = np.arange(count)
    seen = (index <= index[:, None]) & (index[:, None] < ends)
    if window:
        seen &= depths[:, None] - depths < window
    blocks = Blocks(tile=4, forward=(3, 1, 1), grad_queries=(3, 1, 1), grad_keys=(2, 1, 1))
    by_queries, by_keys = tree_tables(ends, depths, window, blocks)
    for tables, size, mask in ((by_queries, 3, seen), (by_keys, 2, seen.T)):
        tiles, met = tables
        left = mask.copy()
        assert sorted(tiles[:, 0].tolist()) == list(range(0, count, 4))
        for first, begin, middle, end in tiles.tolist():
            assert len(set(met[begin:end].tolist())) == end - begin
            for entry in range(begin, end):
                part = mask[first : first + 4, met[entry] : met[entry] + size]
                assert entry >= middle or part.all()
                left[first : first + 4, met[entry] : met[entry] + size] = False
        assert not left.any()
    if not window:
        assert by_queries[1].size <= sum(-(-(stop + 3) // 3) for stop in range(4, count + 4, 4))


def test_branches_that_do_not_see_each_other_cost_nothing() -> None:
    """A group of 8 with 128 tokens in common and 128 of each: 8 x 3 blocks of the own, 3 of the prompt, no other."""
    documents = tree(256, *[(128, 128)] * 7)
    blocks = Blocks(tile=64, forward=(64, 1, 1), grad_queries=(64, 1, 1), grad_keys=(64, 1, 1))
    by_queries, by_keys = tree_tables(documents.ends.cpu().numpy(), documents.depths.cpu().numpy(), 0, blocks)
    assert by_queries[1].size == by_keys[1].size == 3 + 8 * (3 + 4)
    assert (by_queries[0][:, 3] - by_queries[0][:, 2]).tolist() == [1] * 18, "only the diagonal needs a mask"
