"""Columns: sequences that are equal to tuples, share what they have in common, and grow in place."""

import copy
import math
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.agent.columns import Flags, Ids, Logprobs, Roles, Versions, repeated

IDS = st.lists(st.integers(0, 1 << 40), max_size=12)


@given(IDS, IDS, st.slices(12))
def test_a_column_is_its_tuple(left, right, part):
    column = Ids(left)
    assert column == tuple(left)
    assert tuple(left) == column
    assert column == left
    assert len(column) == len(left)
    assert list(column) == left
    assert bool(column) == bool(left)
    assert hash(column) == hash(tuple(left))
    assert column[part] == tuple(left)[part]
    assert column + right == tuple(left + right)
    assert tuple(right) + column == tuple(right + left)
    assert (column == Ids(right)) == (left == right)
    assert [column[place] for place in range(-len(left), len(left))] == left * 2
    assert np.asarray(column, dtype=np.int64).tolist() == left
    assert pickle.loads(pickle.dumps(column)) == copy.deepcopy(column) == column
    assert column.starts_with(Ids(right)) == (left[: len(right)] == right)
    with pytest.raises(IndexError):
        column[len(left)]


@given(st.lists(st.tuples(st.integers(0, 9), st.lists(st.integers(0, 99), max_size=4)), max_size=12))
def test_any_tree_of_continuations_is_right(steps):
    """Whatever is continued, in whatever order, every column keeps its own values."""
    columns, lists = [Ids([1, 2])], [[1, 2]]
    for place, added in steps:
        place %= len(columns)
        columns.append(columns[place] + added)
        lists.append(lists[place] + added)
    assert [list(column) for column in columns] == lists


def test_other_kinds():
    assert Flags([1, 0, True]) == (True, False, True)
    assert Flags([1, 0, True]).count_true() == 2
    assert list(Roles(["user", "assistant", "user"])) == ["user", "assistant", "user"]
    assert Roles(["a"]) + Roles(["b"]) == ("a", "b")
    assert repeated(Versions, -1, 3) == (-1, -1, -1)
    column = Logprobs([math.nan, -0.5])
    assert math.isnan(column[0])
    assert column[1] == -0.5
    assert column == Logprobs([math.nan, -0.5])
    assert Ids([1]) != Ids([2])
    assert Ids([1]) != "1"
    assert np.asarray(Flags([1, 0]), dtype=bool).tolist() == [True, False]


def test_what_grows_is_kept_once():
    tracemalloc.start()
    column, kept = Ids(range(1000)), []
    for _ in range(200):
        column = column + range(1000)
        kept.append(column)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(kept[-1]) == 201_000
    assert len({id(one._data) for one in kept}) == 1
    assert held < 201_000 * 8 * 1.3 + 200_000
