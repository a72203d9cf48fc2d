import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.agent.trajectory import Trajectory
from verigym.trainer.objective.advantages import group_advantages

GROUPS = st.dictionaries(
    st.sampled_from("abcdef"),
    st.lists(st.one_of(st.none(), st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.3, 1.0])), min_size=1, max_size=7),
    min_size=1,
)


def episode(group, reward):
    return Trajectory(
        task_id=group,
        family="f",
        group_id=group,
        ending="sandbox_failure" if reward is None else "submitted",
        reward=reward,
    )


def test_worked_by_hand():
    rewards = [("a", 1.0), ("b", 0.5), ("a", 0.0), ("b", 0.0), ("a", 0.0), ("c", 1.0), ("a", None), ("a", 1.0)]
    result = group_advantages([episode(*row) for row in rewards])
    assert result.values == (0.5, 0.25, -0.5, -0.25, -0.5, None, None, 0.5)
    assert (result.num_groups, result.num_failed, result.num_lone, result.num_uniform) == (3, 1, 1, 0)
    scaled = group_advantages([episode(*row) for row in rewards], scale="std")
    assert scaled.values == (1.0, 1.0, -1.0, -1.0, -1.0, None, None, 1.0)


def test_a_group_that_failures_reduced_to_one_is_dropped_and_never_earns_its_raw_reward():
    result = group_advantages([episode("a", 1.0), episode("a", None), episode("b", None)])
    assert result.values == (None, None, None)
    assert (result.num_failed, result.num_lone) == (2, 2)


@pytest.mark.parametrize("scale", ["none", "std"])
def test_a_constant_group_gives_exact_zeros_or_is_dropped(scale):
    group = [episode("a", 0.1) for _ in range(3)]  # fsum([0.1] * 3) / 3 is not 0.1
    assert group_advantages(group, scale=scale).values == (0.0, 0.0, 0.0)
    dropped = group_advantages(group, scale=scale, drop_uniform=True)
    assert dropped.values == (None, None, None)
    assert dropped.num_uniform == 1


def test_a_reward_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="nan"):
        group_advantages([episode("a", float("nan")), episode("a", 1.0)])


@given(GROUPS, st.sampled_from(["none", "std"]), st.randoms(use_true_random=False))
def test_shuffled_and_ragged_groups_match_each_group_alone_to_the_bit(groups, scale, rng: random.Random):
    rows = [episode(group, reward) for group, rewards in groups.items() for reward in rewards]
    rng.shuffle(rows)
    together = group_advantages(rows, scale=scale).values
    for group in groups:
        places = [index for index, row in enumerate(rows) if row.group_id == group]
        alone = [episode(group, rows[index].reward) for index in places]
        rng.shuffle(alone)
        expected = {row.reward: value for row, value in zip(alone, group_advantages(alone, scale=scale).values)}
        for index in places:
            assert together[index] == expected[rows[index].reward]


@given(GROUPS, st.lists(st.floats(0, 1), min_size=2, max_size=6), st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_rewards_of_one_group_leave_the_others_bit_identical(groups, before, after):
    rows = [episode(group, reward) for group, rewards in groups.items() for reward in rewards]
    first = group_advantages([*[episode("z", reward) for reward in before], *rows]).values[len(before) :]
    second = group_advantages([*[episode("z", reward) for reward in after], *rows]).values[len(after) :]
    assert first == second


def test_the_smallest_differences_are_scaled_like_any_other():
    found = group_advantages([episode("a", 0.0), episode("a", 3.6e-273)], scale="std")
    assert found.values == (-1.0, 1.0)


def test_rewards_that_differ_by_rounding_alone_are_not_all_the_same(make_segment, make_trajectory):
    """What is equal is told by comparison: a tolerance would drop groups of small differences."""
    some = [make_trajectory(make_segment([1, 2], [0, 1]), reward=reward) for reward in (0.1, 0.1 + 1e-12)]
    found = group_advantages(some, scale="std", drop_uniform=True)
    assert found.num_uniform == 0
    assert found.values == pytest.approx((-1.0, 1.0))
