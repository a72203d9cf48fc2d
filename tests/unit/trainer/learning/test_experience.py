import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from verigym.agent.trajectory import Trajectory
from verigym.errors import TrainingError
from verigym.trainer.batching.packs import join
from verigym.trainer.learning.experience import Scorer, experience_of
from verigym.trainer.learning.scores import score
from verigym.trainer.objective.advantages import generalized_advantages, shape_overlong, whiten
from verigym.trainer.objective.critic import Critic
from verigym.trainer.recipe.algorithms import (
    CISPOConfig,
    DAPOConfig,
    DrGRPOConfig,
    GRPOConfig,
    GSPOConfig,
    PPOConfig,
    ReinforcePPConfig,
    RLOOConfig,
)

NAN = math.nan


@pytest.fixture
def episodes(make_segment, make_trajectory):
    """Two groups; the first episode has two segments, the second an observation between its turns."""
    return [
        make_trajectory(make_segment([1, 2, 3], [0, 1, 1]), make_segment([4, 5], [0, 1]), reward=1.0, group="a"),
        make_trajectory(make_segment([1, 2, 9, 9, 3], [0, 1, 0, 0, 1]), reward=0.0, group="a"),
        make_trajectory(make_segment([1, 2], [0, 1]), reward=0.0, group="a", ending="token_limit"),
        make_trajectory(make_segment([6, 7], [0, 1]), reward=1.0, group="b"),
        make_trajectory(make_segment([6, 8], [0, 1]), reward=1.0, group="b"),
        make_trajectory(reward=None, group="b", ending="sandbox_failure"),
    ]


def advantages_of(episodes, config):
    return [[one.advantage for one in documents] for documents in experience_of(episodes, config).documents]


def test_each_algorithm_has_its_baseline(episodes):
    third, deviation = 1 / 3, math.sqrt(2) / 3
    plain = [[2 * third] * 2, [-third], [-third], [], [], []]
    scaled = [[2 * third / deviation] * 2, [-third / deviation], [-third / deviation], [], [], []]
    for config in (GRPOConfig(), DrGRPOConfig()):
        assert advantages_of(episodes, config) == [pytest.approx(row) for row in plain]
    for config in (DAPOConfig(), GSPOConfig(), CISPOConfig(), GRPOConfig(scale="std")):
        assert advantages_of(episodes, config) == [pytest.approx(row) for row in scaled]
    loo = [[1.0] * 2, [-0.5], [-0.5], [], [], []]
    assert advantages_of(episodes, RLOOConfig()) == [pytest.approx(row) for row in loo]
    kept = advantages_of(episodes, GRPOConfig(drop_uniform_groups=False))
    assert kept == [pytest.approx(row) for row in [*plain[:3], [0.0], [0.0], []]]


def test_cut_off_episodes_are_masked_but_stay_in_the_baseline(episodes):
    found = advantages_of(episodes, GRPOConfig(overlong="mask"))
    assert found[:3] == [pytest.approx([2 / 3] * 2), pytest.approx([-1 / 3]), []]


def test_episodes_weigh_the_same_where_asked(episodes):
    found = experience_of(episodes, GRPOConfig(aggregation="episode")).documents
    assert [[one.weight for one in documents] for documents in found[:3]] == [[1 / 3] * 2, [1 / 2], [1.0]]
    assert sum(one.weights.sum() for documents in found for one in documents) == pytest.approx(3.0)


def test_reinforce_pp_normalizes_over_all_tokens_of_the_step(episodes):
    found = experience_of(episodes, ReinforcePPConfig()).documents
    values = [one.advantage[one.loss_mask] for documents in found for one in documents]
    tokens = np.concatenate(values)
    assert len(tokens) == 3 + 2 + 1 + 1 + 1
    assert tokens.mean() == pytest.approx(0, abs=1e-6)
    assert tokens.std() == pytest.approx(1, abs=1e-6)
    assert len({round(float(v), 6) for v in tokens}) == 2  # two rewards
    grouped = experience_of(episodes, ReinforcePPConfig(baseline="group", group_size=2)).documents
    b = np.concatenate([one.advantage[one.loss_mask] for one in grouped[3] + grouped[4]])
    a = np.concatenate([one.advantage[one.loss_mask] for one in grouped[0]])
    assert b[0] == b[1] != a[0]  # a uniform group is at its baseline, which is not the step's mean


def test_rewards_that_are_no_numbers_are_refused_with_the_family(episodes, make_segment, make_trajectory):
    broken = make_trajectory(make_segment([1, 2], [0, 1]), reward=NAN, group="a")
    for config in (GRPOConfig(), PPOConfig(), ReinforcePPConfig()):
        with pytest.raises(TrainingError, match=r"reward nan.*environment of family 'f'"):
            experience_of([*episodes, broken], config, Scorer(torch.nn.Module(), GRPOConfig()))  # type: ignore[arg-type]


def test_long_episodes_lose_reward_linearly(make_segment, make_trajectory):
    lengths = [2, 6, 7, 8, 10, 14, 11]
    some = [make_trajectory(make_segment(range(n + 1), [0] + [1] * n)) for n in lengths]
    found = shape_overlong(some, [1.0] * 6 + [None], length=10, buffer=4, penalty=2.0)
    assert found == [1.0, 1.0, pytest.approx(0.5), pytest.approx(0.0), -1.0, -1.0, None]
    assert shape_overlong(some[:5], [1.0] * 5, length=10, buffer=0, penalty=1.0) == [1.0] * 4 + [0.0]
    config = DAPOConfig(overlong_length=10, overlong_buffer=4)
    made = experience_of([some[0], some[4]], config)
    assert [documents[0].advantage for documents in made.documents] == [1.0, -1.0]


def brute_force(rewards, values, gamma, decay):
    """GAE by its definition: a sum over all later errors."""
    following = [*values[1:], 0.0]
    errors = [r + gamma * f - v for r, f, v in zip(rewards, following, values)]
    return [
        sum((gamma * decay) ** (later - t) * errors[later] for later in range(t, len(errors)))
        for t in range(len(errors))
    ]


@given(
    st.lists(st.tuples(st.floats(-2, 2), st.floats(-2, 2)), min_size=1, max_size=12),
    st.floats(0.5, 1),
    st.floats(0, 1),
)
def test_generalized_advantages_equal_their_definition(rows, gamma, decay):
    rewards, values = (np.asarray(column, dtype=np.float64) for column in zip(*rows))
    advantages, returns = generalized_advantages(rewards, values, gamma=gamma, gae_lambda=decay)
    np.testing.assert_allclose(advantages, brute_force(rewards, values, gamma, decay), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(returns, advantages + values)


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=8), min_size=1, max_size=3), st.integers(0, 2**31))
def test_ppo_steps_over_observations_and_segments(masks, seed):
    """Episodes of ragged masks over several segments: the advantages are those of the sampled tokens alone."""
    from verigym.agent.trajectory import Segment

    masks = [[False, *mask, True] for mask in masks]
    rng = np.random.default_rng(seed)
    segments = tuple(
        Segment(
            token_ids=tuple(range(len(mask))),
            loss_mask=tuple(mask),
            logprobs=tuple(-0.5 if one else NAN for one in mask),
            policy_version=tuple(0 if one else -1 for one in mask),
            roles=("x",) * len(mask),
        )
        for mask in masks
    )
    episode = Trajectory(task_id="t", family="f", group_id="g", ending="submitted", reward=1.0, segments=segments)
    values: list[float] = []

    def annotate(documents):
        made = []
        for one in documents:
            column = np.full(len(one), 99.0, np.float32)  # what is no action must not be read
            column[one.loss_mask] = rng.standard_normal(int(one.loss_mask.sum()))
            values.extend(column[one.loss_mask].tolist())
            made.append(replace(one, columns={"old_values": column}))
        return made

    config = PPOConfig(gamma=0.9, gae_lambda=0.7, whiten=False)
    made = experience_of([episode], config, annotate).documents[0]
    rewards = [0.0] * (len(values) - 1) + [1.0]
    expected = brute_force(rewards, values, 0.9, 0.7)
    found = np.concatenate([one.advantage[one.loss_mask] for one in made])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    returns = np.concatenate([one.columns["returns"][one.loss_mask] for one in made])
    np.testing.assert_allclose(returns, np.asarray(expected) + values, rtol=1e-5, atol=1e-5)


def test_whitening_is_over_all_parts_together():
    first, second = whiten([np.asarray([1.0, 2.0]), np.asarray([3.0])])
    joined = np.concatenate([first, second])
    assert (joined.mean(), joined.std()) == (pytest.approx(0), pytest.approx(1))
    assert [part.tolist() for part in whiten([np.asarray([0.1]), np.asarray([0.1])])] == [[0.0], [0.0]]


def test_what_the_weights_before_the_step_say_lands_on_its_own_tokens(episodes, make_decoder):
    decoder, reference = make_decoder(), make_decoder(head_dim=8)
    with torch.no_grad():
        reference.head.weight.mul_(3.0)
    critic = Critic(decoder, "model")
    torch.nn.init.normal_(critic.value.weight)
    config = PPOConfig(kl={"coef": 0.1}, correction={"kind": "truncate"}, microbatch_tokens=8, temperature=0.7)
    made = experience_of(episodes, config, Scorer(decoder, config, reference=reference, critic=critic))
    for documents in made.documents:
        for one in documents:
            alone = join([one], temperature=0.7)
            with torch.no_grad():
                own, other = score(decoder, alone, critic), score(reference, alone)
            mask = one.loss_mask
            for name, expected in (
                ("anchor_logprobs", own.logprobs),
                ("old_values", own.values),
                ("reference_logprobs", other.logprobs),
            ):
                np.testing.assert_allclose(one.columns[name][mask], expected.numpy(), rtol=1e-5, atol=1e-5)
                assert not one.columns[name][~mask].any()
    assert made.metrics["trainer/mismatch_kl/mean"] > 0
    assert 0 < made.metrics["trainer/sampler_effective_sample_size/share"] < 1


def test_a_distance_in_the_reward_lowers_it(episodes, make_decoder):
    decoder = make_decoder()
    for config, first in (
        (GRPOConfig(kl={"coef": 0.1, "place": "reward", "estimator": "k1"}), 3),
        (ReinforcePPConfig(kl={"coef": 0.1, "place": "reward", "estimator": "k1"}), 3),
        (PPOConfig(kl={"coef": 0.1, "place": "reward", "estimator": "k1"}, whiten=False), 3),
    ):
        critic = Critic(decoder, "head") if isinstance(config, PPOConfig) else None
        made = experience_of(episodes, config, Scorer(decoder, config, reference=decoder, critic=critic))
        b = [one for documents in made.documents[first : first + 2] for one in documents]
        costs = [0.1 * float((one.old_logprobs - one.columns["reference_logprobs"])[0]) for one in b]
        found = [float(np.atleast_1d(one.advantage)[-1]) for one in b]
        if isinstance(config, PPOConfig):
            assert found == pytest.approx([1 - costs[0], 1 - costs[1]], abs=1e-5)
        else:
            # the two rewards are equal: what tells them apart is the distance alone
            assert (found[0] - found[1]) * (costs[1] - costs[0]) > 0


def with_reference(logprob):
    """What annotates documents with a reference of that log-probability at every trained token."""

    def annotate(documents):
        return [
            replace(one, columns={"reference_logprobs": np.where(one.loss_mask, logprob, 0.0).astype(np.float32)})
            for one in documents
        ]

    return annotate


def test_a_distance_in_the_reward_is_of_the_whole_episode(episodes):
    """Sampled at -0.5, the reference says -1.5: every token costs 0.1, in whatever segment it stands."""
    config = GRPOConfig(kl={"coef": 0.1, "place": "reward", "estimator": "k1"})
    made = experience_of(episodes, config, with_reference(-1.5))
    rewards = [1.0 - 0.3, 0.0 - 0.2, 0.0 - 0.1]
    mean = sum(rewards) / 3
    found = [[one.advantage for one in documents] for documents in made.documents[:3]]
    assert found == [pytest.approx([reward - mean] * len(row)) for reward, row in zip(rewards, found)]


def test_reinforce_pp_counts_the_costs_that_are_still_to_come(episodes):
    config = ReinforcePPConfig(kl={"coef": 0.1, "place": "reward", "estimator": "k1"})
    made = experience_of(episodes, config, with_reference(-1.5))
    plain = np.array([0.7, 0.8, 0.9, -0.2, -0.1, -0.1, 0.9, 0.9])
    expected = (plain - plain.mean()) / plain.std()
    found = np.concatenate([one.advantage[one.loss_mask] for documents in made.documents for one in documents])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
