"""Changes of weights: exact under any cut, small at a small rate, compared by sums that no cut changes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.errors import CheckpointError
from verigym.model.weights.delta import Block, added, decoded, encoded, read_blocks, sum_of, write_blocks


def block_of(shape, rows=None, columns=None):
    cut = (slice(*(rows or (0, shape[0]))), slice(*(columns or (0, shape[1]))))
    return Block.of(shape, cut)


@given(
    seed=st.integers(0, 2**31),
    share=st.sampled_from([0.0, 0.001, 0.01, 0.5, 1.0]),
    dtype=st.sampled_from([torch.bfloat16, torch.float32]),
)
@settings(max_examples=40)
def test_changes_lead_from_one_to_the_other(seed, share, dtype):
    generator = torch.Generator().manual_seed(seed)
    before = torch.randn(37, 53, generator=generator).to(dtype)
    changed = torch.rand(37, 53, generator=generator) < share
    now = torch.where(changed, torch.randn(37, 53, generator=generator).to(dtype), before)
    found = encoded(before, now)
    if torch.equal(before, now):
        assert found == {}
        return
    places, changes = decoded(found, dtype)
    kind = {2: torch.int16, 4: torch.int32}[dtype.itemsize]
    bits = before.reshape(-1).view(kind).clone()
    bits[places] += changes
    assert torch.equal(bits, now.reshape(-1).view(kind))


@pytest.mark.parametrize("base", [0, 1, -1, 32767, -32768])
def test_every_difference_of_sixteen_bits(base):
    now = torch.arange(-(1 << 15), 1 << 15).to(torch.int16)
    before = torch.full_like(now, base)
    places, changes = decoded(encoded(before.view(torch.bfloat16), now.view(torch.bfloat16)), torch.bfloat16)
    before[places] += changes
    assert torch.equal(before, now)


@given(row=st.integers(1, 36), column=st.integers(1, 52), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_the_sum_of_a_weight_is_that_of_its_blocks_however_it_is_cut(row, column, seed):
    shape = (37, 53)
    value = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)
    whole = sum_of(value, block_of(shape))
    by_rows = [(value[:row], block_of(shape, (0, row))), (value[row:], block_of(shape, (row, 37)))]
    by_columns = [
        (value[:, :column].contiguous(), block_of(shape, None, (0, column))),
        (value[:, column:].contiguous(), block_of(shape, None, (column, 53))),
    ]
    for blocks in (by_rows, by_columns):
        assert added([sum_of(part, block) for part, block in blocks]) == whole
    other = value.clone()
    other[row, column] += 1
    assert sum_of(other, block_of(shape)) != whole
    moved = value.clone()
    moved[0], moved[1] = value[1], value[0]
    assert sum_of(moved, block_of(shape)) != whole


def test_a_step_at_a_small_rate_takes_a_few_percent_of_the_bytes():
    """Adam's first steps change each weight by the rate; in bfloat16 most of that is rounded away."""
    weight = torch.randn(1024, 1024, generator=torch.Generator().manual_seed(0)) * 0.02
    before, total = weight.to(torch.bfloat16), 0
    for step in range(10):
        sign = torch.randn(weight.shape, generator=torch.Generator().manual_seed(step)).sign()
        weight -= 1e-6 * sign
        now = weight.to(torch.bfloat16)
        total += sum(value.numel() for value in encoded(before, now).values())
        before = now
    assert total / 10 < 0.05 * 2 * weight.numel()


def test_a_file_of_blocks(tmp_path):
    before = torch.zeros(4, 6, dtype=torch.bfloat16)
    now = before.clone()
    now[1, 2] = 1.0
    block = block_of((8, 6), (4, 8))
    same = (block_of((4, 6)), {})
    size = write_blocks(tmp_path, 0, {"a.weight": (block, encoded(before, now)), "b.weight": same})
    write_blocks(tmp_path, 1, {"a.weight": (block, encoded(before, now))})  # a replica of the same block
    assert size < 1000
    ((name, told, found),) = list(read_blocks(tmp_path))
    assert (name, told) == ("a.weight", block)
    places, changes = decoded(found, torch.bfloat16)
    assert places.tolist() == [8]
    assert changes.tolist() == [int(np.array(1.0, np.float32).view(np.int32) >> 16)]


def test_a_broken_delta_says_so(tmp_path):
    found = encoded(torch.zeros(300, dtype=torch.bfloat16), torch.ones(300, dtype=torch.bfloat16))
    with pytest.raises(CheckpointError, match="a delta is broken"):
        decoded({**found, "gaps": found["gaps"][:-3]}, torch.bfloat16)
    write_blocks(tmp_path, 0, {"a": (block_of((300, 1)), found)})
    file = tmp_path / "delta-00000.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="cannot be read"):
        list(read_blocks(tmp_path))
