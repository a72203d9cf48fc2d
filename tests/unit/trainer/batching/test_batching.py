import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.agent.trajectory import Segment, Trajectory
from verigym.trainer.batching.documents import Document, DocumentStream, demonstrations_of, document_of
from verigym.trainer.batching.packs import join, pack

NAN = float("nan")


def test_shift_masks_and_logprobs_are_exact(make_segment):
    # prompt 10 11 | sampled 12 13 | observation 14 | sampled 15 16 | trailing observation 17 18
    segment = make_segment(
        [10, 11, 12, 13, 14, 15, 16, 17, 18],
        [0, 0, 1, 1, 0, 1, 1, 0, 0],
        [NAN, NAN, -0.1, -0.2, NAN, -0.3, -0.4, NAN, NAN],
    )
    document = document_of(segment, sampled=True, advantage=0.5)
    assert document is not None
    assert document.token_ids.tolist() == [10, 11, 12, 13, 14, 15]
    assert document.targets.tolist() == [11, 12, 13, 14, 15, 16]
    assert document.loss_mask.tolist() == [False, True, True, False, True, True]
    expected = np.asarray([NAN, -0.1, -0.2, NAN, -0.3, -0.4], dtype=np.float32)
    np.testing.assert_array_equal(document.old_logprobs, expected)


def test_packs_are_exact(make_segment):
    segments = [
        make_segment([1, 2, 3], [0, 1, 1]),
        make_segment([4, 5], [0, 1]),
        make_segment([6, 7, 8, 9], [0, 0, 0, 1]),
    ]
    weights, advantages = [1 / 3, 1 / 3, 1.0], [1.0, 1.0, np.asarray([0.0, 0.0, -1.0])]
    documents = [
        document_of(segment, sampled=True, advantage=advantage, weight=weight)
        for segment, advantage, weight in zip(segments, advantages, weights)
    ]
    documents = [replace(one, columns={"returns": np.arange(len(one), dtype=np.float32)}) for one in documents]
    [batch] = pack(documents, max_tokens=8, temperature=0.6)
    assert batch.temperature == 0.6
    assert batch.lengths == (3, 2, 1)  # longest first
    assert batch.token_ids.tolist() == [6, 7, 8, 1, 2, 4]
    assert batch.targets.tolist() == [7, 8, 9, 2, 3, 5]
    assert batch.loss_mask.tolist() == [False, False, True, True, True, True]
    assert batch.advantages.tolist() == [0, 0, -1, 1, 1, 1]
    assert batch.columns["returns"].tolist() == [0, 1, 2, 0, 1, 0]
    third = float(np.float32(1 / 3))
    assert batch.weights.tolist() == [0, 0, 1, third, third, third]
    assert [pack.lengths for pack in pack(documents, max_tokens=3)] == [(3,), (2, 1)]
    assert document_of(make_segment([1, 2], [0, 0]), sampled=True) is None


@pytest.mark.parametrize("missing", [NAN, float("-inf")])
def test_a_missing_log_probability_raises_in_rl_and_is_ignored_in_imitation(make_segment, make_trajectory, missing):
    segment = make_segment([1, 2, 3], [0, 1, 1], [NAN, -0.5, missing], version=-1)
    with pytest.raises(ValueError, match="token 2 is trained but its sampled log-probability"):
        document_of(segment, sampled=True)
    [document] = demonstrations_of([make_trajectory(segment)])
    assert document.loss_mask.tolist() == [True, True]
    assert np.isnan(document.old_logprobs).all()


def test_a_trained_token_without_context_and_an_overlong_document_are_refused(make_segment, make_trajectory):
    with pytest.raises(ValueError, match="begin with a prompt"):
        document_of(make_segment([1, 2], [1, 1]), sampled=True)
    documents = demonstrations_of([make_trajectory(make_segment([1, 2, 3], [0, 1, 1]))])
    with pytest.raises(ValueError, match="raise microbatch_tokens"):
        pack(documents, max_tokens=1)


def document(length: int, seed: int) -> Document:
    rng = np.random.default_rng(seed)
    return Document(
        token_ids=rng.integers(0, 99, length),
        targets=rng.integers(0, 99, length),
        loss_mask=rng.random(length) < 0.5,
        old_logprobs=np.full(length, -1.0, np.float32),
        advantage=float(seed),
        weight=0.5,
    )


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(20, 60))
def test_packing_keeps_every_document_once_and_whole(lengths, max_tokens):
    documents = [document(length, seed) for seed, length in enumerate(lengths)]
    found = []
    for batch in pack(documents, max_tokens=max_tokens):
        assert batch.num_tokens == sum(batch.lengths) <= max_tokens
        start = 0
        for length in batch.lengths:
            part = slice(start, start + length)
            seed = int(batch.advantages[start])
            assert batch.token_ids[part].tolist() == documents[seed].token_ids.tolist()
            assert batch.targets[part].tolist() == documents[seed].targets.tolist()
            assert batch.loss_mask[part].tolist() == documents[seed].loss_mask.tolist()
            assert (batch.weights[part] != 0).tolist() == documents[seed].loss_mask.tolist()
            found.append(seed)
            start += length
    assert sorted(found) == list(range(len(documents)))


@given(
    st.lists(st.booleans(), min_size=1, max_size=12),
    st.lists(st.integers(0, 9), min_size=1, max_size=3),
)
def test_inserted_observations_change_no_target_advantage_or_weight_of_an_action(mask, observations):
    def segment(with_observation: bool) -> Segment:
        rows = [(0, False, NAN)]
        for index, trained in enumerate(mask):
            if with_observation:
                rows += [(value, False, NAN) for value in observations]
            rows.append((100 + index, trained, -0.01 * index if trained else NAN))
        ids, masks, logprobs = zip(*rows)
        roles = ("x",) * len(rows)
        return Segment(token_ids=ids, loss_mask=masks, logprobs=logprobs, policy_version=(0,) * len(rows), roles=roles)

    if not any(mask):
        assert document_of(segment(True), sampled=True) is None
        return
    trained = []
    for inserted in (False, True):
        one = document_of(segment(inserted), sampled=True, advantage=0.25)
        assert one is not None
        batch = join([one])
        columns = (batch.targets, batch.old_logprobs, batch.advantages, batch.weights)
        trained.append([column[batch.loss_mask].tolist() for column in columns])
    assert trained[0] == trained[1]


def test_a_stream_gives_every_document_once_an_epoch_in_a_new_order_and_resumes():
    documents = [document(length, seed) for seed, length in enumerate([5, 9, 3, 7, 2, 8, 4])]
    stream = DocumentStream(documents, batch_tokens=12, seed=1)
    epochs: list[list[float]] = [[], []]
    while stream.epoch < 2:
        epoch = stream.epoch
        batch = stream.next_batch()
        assert sum(map(len, batch)) <= 12
        epochs[epoch] += [one.advantage for one in batch]
    assert [sorted(order) for order in epochs] == [list(range(7))] * 2
    assert epochs[0] != epochs[1]

    first = DocumentStream(documents, batch_tokens=12, seed=1)
    for _ in range(2):
        first.next_batch()
    second = DocumentStream(documents, batch_tokens=12, seed=1)
    second.load_state_dict(first.state_dict())
    for _ in range(6):
        assert [one.advantage for one in first.next_batch()] == [one.advantage for one in second.next_batch()]
    assert math.isclose(first.epochs_done, second.epochs_done)
    with pytest.raises(ValueError, match="same data"):
        DocumentStream(documents[:3], batch_tokens=12).load_state_dict(first.state_dict())


def test_observations_weigh_what_they_are_given_and_nothing_by_default() -> None:
    segment = Segment(
        token_ids=(5, 6, 7, 8),
        loss_mask=(False, False, True, True),
        logprobs=(math.nan,) * 4,
        policy_version=(-1,) * 4,
        roles=("user", "user", "assistant", "assistant"),
    )
    trajectory = Trajectory(task_id="t", family="f", ending="answered", segments=(segment,))
    (plain,) = demonstrations_of([trajectory])
    (echoed,) = demonstrations_of([trajectory], observation_weight=0.25)
    assert join([plain]).weights.tolist() == [0.0, 1.0, 1.0]
    assert join([echoed]).weights.tolist() == [0.25, 1.0, 1.0]
    assert join([echoed]).loss_mask.tolist() == [True, True, True]
