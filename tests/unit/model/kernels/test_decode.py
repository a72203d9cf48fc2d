"""Paged decoding against the float64 reference."""

import pytest
import torch
from torch import Tensor

from verigym.model.kernels.decode import paged_decode
from verigym.model.kernels.reference import reference_decode

from .conftest import DEVICE, assert_near, randn

HEAD_DIM = 16
SPLIT = 32


def _pages(lengths: list[int], page_size: int, kv_heads: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, values [P, C, G, K] and a shuffled page table [B, M]."""
    width = -(-max(lengths) // page_size)
    count = width * len(lengths) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: width * len(lengths)]
    keys, values = (randn(count, page_size, kv_heads, HEAD_DIM, seed=seed + index) for index in (1, 2))
    return keys, values, order.view(len(lengths), width).int()


def _decode(q: Tensor, keys: Tensor, values: Tensor, table: Tensor, lengths: list[int], window: int | None):
    inputs = [x.to(DEVICE) for x in (q, keys, values, table, torch.tensor(lengths, dtype=torch.int32))]
    return paged_decode(*inputs, max(lengths), window or 0, HEAD_DIM**-0.5, SPLIT)


@pytest.mark.parametrize("window", [None, 4, 40])
@pytest.mark.parametrize(("group", "page_size"), [(1, 16), (6, 5)])
def test_it_equals_the_float64_reference(group: int, page_size: int, window: int | None) -> None:
    lengths = [1, 15, 16, 33, 0, 70]
    kv_heads = 1
    q = randn(len(lengths), kv_heads * group, HEAD_DIM, seed=0)
    keys, values, table = _pages(lengths, page_size, kv_heads, seed=1)
    exact = reference_decode(q, keys, values, table, lengths, window)
    got = _decode(q.float(), keys.float(), values.float(), table, lengths, window)
    live = torch.tensor(lengths) > 0
    assert_near(got[0], exact[0], 2e-6)
    assert_near(got[1][live.to(DEVICE)], exact[1][live], 2e-6)
    assert got[1][~live.to(DEVICE)].eq(float("-inf")).all()


def test_a_sequence_gets_the_same_bits_in_any_batch() -> None:
    lengths = [33, 70, 5]
    q = randn(3, 2, HEAD_DIM, seed=0).float()
    keys, values, table = (x.float() if x.is_floating_point() else x for x in _pages(lengths, 16, 2, seed=1))
    together, _ = _decode(q, keys, values, table, lengths, None)
    for index, length in enumerate(lengths):
        part = slice(index, index + 1)
        alone, _ = _decode(q[part], keys, values, table[part], [length], None)
        assert torch.equal(alone, together[part])


def test_pages_outside_the_window_are_never_read() -> None:
    lengths = [70]
    q = randn(1, 2, HEAD_DIM, seed=0).float()
    keys, values, table = (x.float() if x.is_floating_point() else x for x in _pages(lengths, 16, 2, seed=1))
    expected, _ = _decode(q, keys, values, table, lengths, 6)
    seen = set(table[0, (70 - 6) // 16 :].tolist())
    for page in range(keys.shape[0]):
        if page not in seen:
            keys[page] = values[page] = float("nan")
    got, _ = _decode(q, keys, values, table, lengths, 6)
    assert torch.equal(got, expected)


def test_slots_are_pages_as_long_as_a_sequence() -> None:
    """The layout of the engine's slots, [S, G, C, K], read in place."""
    slots = randn(3, 2, 40, HEAD_DIM, seed=1).float()
    q = randn(3, 4, HEAD_DIM, seed=0)
    table = torch.arange(3, dtype=torch.int32)[:, None]
    pages = slots.transpose(1, 2)
    exact, _ = reference_decode(q, pages.double(), pages.double(), table, [40, 7, 1], 9)
    got, _ = _decode(q.float(), pages, pages, table, [40, 7, 1], 9)
    assert_near(got, exact, 2e-6)
