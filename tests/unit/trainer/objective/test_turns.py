"""Credit by turn: exact numbers, its expectation against the true gradient, and which tokens get it."""

# Stand-ins, and what no type allows.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportIndexIssue=false

import itertools
from dataclasses import replace

import numpy as np
import pytest

from verigym.errors import TrainingError
from verigym.trainer.learning.experience import experience_of
from verigym.trainer.objective.advantages import group_advantages
from verigym.trainer.objective.objective import baselined
from verigym.trainer.objective.turns import at_ends, by_token, plain_turns, rewards_of_turns, to_go, turn_advantages
from verigym.trainer.recipe.algorithms import ALGORITHMS, GRPOConfig, PPOConfig, ReinforcePPConfig, RLOOConfig


@pytest.fixture
def episode(make_trajectory, make_segment):
    def make(*turns, tokens=None, group="g", reward=None):
        """An episode of turns that earned so much, of two tokens each, with an observation between them."""
        tokens = tokens or [2] * len(turns)
        mask = [0] + [bit for count in tokens for bit in [1] * count + [0]]
        segment = make_segment(range(3, 3 + len(mask)), mask)
        total = sum(turns) if reward is None else reward
        found = make_trajectory(segment, reward=total, group=group)
        return replace(found, turn_rewards=tuple(turns), turn_tokens=tuple(tokens), num_turns=len(turns))

    return make


def rewards(episodes):
    return [one.reward for one in episodes]


def test_returns_to_go_against_those_that_reached_the_turn(episode):
    episodes = [episode(1.0, 0.0, 2.0), episode(0.0, 1.0), episode(0.5, 0.5)]
    found = turn_advantages(episodes, rewards(episodes))
    # To go: (3, 2, 2), (1, 1), (1, 0.5); means 5/3, 3.5/3, and nobody else reaches the third turn.
    expected = ((3 - 5 / 3, 2 - 3.5 / 3, 0.0), (1 - 5 / 3, 1 - 3.5 / 3), (1 - 5 / 3, 0.5 - 3.5 / 3))
    for own, wanted in zip(found.turns, expected, strict=True):
        assert own == pytest.approx(wanted)
    left = turn_advantages(episodes, rewards(episodes), leave_one_out=True)
    assert left.turns[0] == pytest.approx((1.5 * expected[0][0], 1.5 * expected[0][1], 0.0))


def test_with_the_whole_reward_at_the_end_it_is_the_episodes(episode):
    episodes = [episode(0.0, 0.0, 1.0), episode(0.0, 0.0, 0.0), episode(0.0, 0.0, 0.5)]
    whole = group_advantages(episodes)
    for named in (episodes, [replace(one, turn_rewards=()) for one in episodes]):
        found = turn_advantages(named, rewards(named))
        assert found.values == pytest.approx(whole.values)
        assert all(len(set(row)) == 1 for row in found.turns)


def test_groups_failures_and_uniform_ones(episode):
    episodes = [episode(0.0, 1.0), episode(1.0, 0.0), episode(0.5, 0.5, group="h"), episode(0.5, 0.5, group="h")]
    failed = replace(episode(0.0), reward=None)
    found = turn_advantages([*episodes, failed], [*rewards(episodes), None], drop_uniform=True)
    # The whole rewards of g are the same; when they came is not.
    assert group_advantages(episodes, drop_uniform=True).values == (None,) * 4
    assert found.turns == ((0.0, 0.5), (0.0, -0.5), None, None, None)
    assert (found.num_groups, found.num_failed, found.num_uniform) == (2, 1, 1)
    scaled = turn_advantages(episodes[:2], rewards(episodes[:2]), scale="std")
    assert scaled.turns == (pytest.approx((0.0, 2**0.5)), pytest.approx((0.0, -(2**0.5))))


def test_what_shaping_changed_is_the_last_turns(episode):
    one = episode(1.0, 0.5)
    assert rewards_of_turns(one, 1.25) == (1.0, 0.25)
    assert rewards_of_turns(replace(one, turn_rewards=()), 1.25) == (0.0, 1.25)
    assert rewards_of_turns(replace(one, turn_rewards=(), turn_tokens=()), 1.25) == (1.25,)
    assert to_go((1.0, 0.25, -1.0)) == (0.25, -0.75, -1.0)


# The expectation. Two turns, two actions each; a first action of 0 may end the episode.

FIRST, SECOND, EARNED = 0.3, 0.6, ((1.0, 0.2), (0.4, -0.5))


def outcomes():
    """(probability, rewards of turns, score functions of turns) of every episode: action 0 first ends it."""
    rows = [(FIRST, (EARNED[0][0],), (1 - FIRST,))]
    for second, p in ((0, SECOND), (1, 1 - SECOND)):
        score = 1 - SECOND if second == 0 else -SECOND
        rows.append(((1 - FIRST) * p, (EARNED[0][1], EARNED[1][second]), (-FIRST, score)))
    return rows


def expected(make, weights, size):
    """[2] the mean over all groups of ``size`` episodes of sum over turns of advantage times score, of the first."""
    total = np.zeros(2)
    for group in itertools.product(outcomes(), repeat=size):
        p = np.prod([one[0] for one in group])
        episodes = [make(*one[1]) for one in group]
        for turn, (value, score) in enumerate(zip(weights(episodes), group[0][2], strict=True)):
            total[turn] += p * value * score
    return total


def true_gradient():
    total = np.zeros(2)
    for p, turns, scores in outcomes():
        for turn, score in enumerate(scores):
            total[turn] += p * sum(turns) * score
    return total


@pytest.mark.parametrize("size", [2, 3])
def test_the_stated_bias_is_the_bias(episode, size):
    true = true_gradient()
    own = expected(episode, lambda group: turn_advantages(group, rewards(group)).turns[0], size)
    # Of n - 1 others each reaches the second turn with probability 1 - FIRST; alone it counts nothing.
    shares = [(1 - FIRST) ** k * FIRST ** (size - 1 - k) * (1 if k in (0, size - 1) else size - 1) for k in range(size)]
    factor = sum(share * k / (k + 1) for k, share in enumerate(shares))
    assert own == pytest.approx([true[0] * (size - 1) / size, true[1] * factor])
    left = expected(episode, lambda group: turn_advantages(group, rewards(group), leave_one_out=True).turns[0], size)
    assert left == pytest.approx([true[0], true[1] * (1 - shares[0])])


def test_credit_of_the_episode_has_the_same_mean_and_more_noise(episode):
    def whole(group):
        return [group_advantages(group).values[0]] * len(group[0].turn_rewards)

    assert expected(episode, whole, 3) == pytest.approx(true_gradient() * 2 / 3)

    def noise(weights):
        mean = square = 0.0
        for group in itertools.product([one for one in outcomes() if len(one[1]) == 2], repeat=3):
            p = np.prod([one[0] for one in group])
            # The first action's reward is drawn beside it, and the second turn has no part in it.
            for luck in itertools.product((-1.0, 1.0), repeat=3):
                episodes = [episode(one[1][0] + extra, one[1][1]) for one, extra in zip(group, luck, strict=True)]
                value = weights(episodes)[1] * group[0][2][1]
                mean, square = mean + p / 8 * value, square + p / 8 * value**2
        return square - mean**2

    assert noise(lambda group: turn_advantages(group, rewards(group)).turns[0]) < 0.2 * noise(whole)


# Tokens.


def test_tokens_get_the_number_of_their_turn(episode):
    one = episode(1.0, 2.0, 0.0, tokens=[2, 1, 3])
    assert by_token(one, (5.0, 6.0, 7.0), 6).tolist() == [5, 5, 6, 7, 7, 7]
    assert at_ends(one, (5.0, 6.0, 7.0), 6).tolist() == [0, 5, 6, 0, 0, 7]
    assert by_token(one, (5.0,), 6).tolist() == [5] * 6
    assert at_ends(one, (5.0,), 6).tolist() == [0] * 5 + [5]
    with pytest.raises(TrainingError, match=r"set rl\.train\.credit = 'episode'"):
        by_token(one, (5.0, 6.0), 6)


def test_an_update_learns_by_turn(episode):
    episodes = [episode(1.0, 0.0), episode(0.0, 1.0)]
    made = experience_of(episodes, GRPOConfig(credit="turn"))
    (first,), (second,) = made.documents
    assert first.advantage[first.loss_mask].tolist() == [0.0, 0.0, -0.5, -0.5]
    assert second.advantage[second.loss_mask].tolist() == [0.0, 0.0, 0.5, 0.5]
    assert not first.advantage[~first.loss_mask].any()
    assert experience_of(episodes, GRPOConfig()).documents == ((), ())  # whole rewards are the same
    rloo = experience_of(episodes, RLOOConfig(credit="turn"))
    assert rloo.documents[1][0].advantage[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("name", sorted(set(ALGORITHMS) - {"max_rl", "opd", "sdpo", "sdft", "opsd"}))  # refused there
def test_every_algorithm_takes_credit_by_turn(episode, name):
    config = ALGORITHMS[name](credit="turn", num_tasks=1, group_size=2)
    episodes = [episode(1.0, 0.0), episode(0.0, 0.5)]
    found = baselined(config, episodes, rewards(episodes))
    assert all(len(row) == 2 for row in found.turns)
    if isinstance(config, PPOConfig):
        assert found.turns == ((1.0, 0.0), (0.0, 0.5))  # each turn's own: the critic sums them
    elif isinstance(config, ReinforcePPConfig):
        assert found.turns == ((1.0, 0.0), (0.5, 0.5))
        (first,), (second,) = experience_of(episodes, config).documents
        values = np.concatenate([one.advantage[one.loss_mask] for one in (first, second)])
        assert values.mean() == pytest.approx(0.0, abs=1e-6)
        assert len(set(first.advantage[first.loss_mask].tolist())) == 2


def test_a_critic_meets_each_reward_at_the_end_of_its_turn(episode):
    episodes = [episode(1.0, 2.0)]
    config = PPOConfig(credit="turn", num_tasks=1, whiten=False)
    made = experience_of(
        episodes,
        config,
        annotate=lambda documents: [
            replace(one, columns={"old_values": np.zeros(len(one), np.float32)}) for one in documents
        ],
    )
    (document,) = made.documents[0]
    assert document.columns["returns"][document.loss_mask].tolist() == [3.0, 3.0, 2.0, 2.0]
    plain = plain_turns(episodes, [3.0], ahead=False)
    assert plain.turns == ((1.0, 2.0),)
