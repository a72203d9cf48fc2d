"""Weighted draws by a tree."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.trainer.sampling.weights import Weights

WEIGHTS = st.lists(st.sampled_from([0.0, 0.25, 1.0, 3.0, 1e-12]), min_size=1, max_size=40)


@given(WEIGHTS, st.lists(st.tuples(st.integers(0, 39), st.sampled_from([0.0, 0.5, 2.0])), max_size=20))
def test_a_draw_falls_where_the_weights_say(weights, changes):
    tree = Weights(weights)
    for index, weight in changes:
        index %= len(weights)
        weights[index] = weight
        tree.set(index, weight)
    assert tree.total == pytest.approx(sum(weights))
    if not sum(weights):
        return
    for draw in (0.0, 0.1, 0.25, 0.5, 0.9, 1 - 2**-53):
        index = tree.at(draw)
        assert weights[index] > 0
        before = sum(weights[:index])
        assert before - 1e-9 <= draw * sum(weights) <= before + weights[index] + 1e-9
    assert Weights(weights)._sums == tree._sums  # what was before leaves nothing


def test_each_comes_as_often_as_its_weight_says():
    tree, draw = Weights([1.0, 0.0, 2.0, 5.0]), random.Random(0)
    counts = Counter(tree.at(draw.random()) for _ in range(8000))
    assert [round(counts[index] / 1000, 1) for index in range(4)] == pytest.approx([1.0, 0.0, 2.0, 5.0], abs=0.2)
