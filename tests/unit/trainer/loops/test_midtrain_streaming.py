"""Documents of midtraining pass through memory one after another."""

import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.envs.trace.examples import Example, stratified
from verigym.envs.trace.shards import ShardWriter, read_shards
from verigym.errors import TaskError
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.trace import Frame, Trace
from verigym.model.tokenizer import train_tokenizer
from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import pack
from verigym.trainer.batching.stored import LazyPacks, StoredDocuments, stored
from verigym.trainer.loops.midtrain import DocumentMixture
from verigym.trainer.loops.midtrain_data import documents_of
from verigym.trainer.loops.midtrain_groups import Grouped, digest
from verigym.trainer.loops.midtrain_sources import Drawn, Source
from verigym.trainer.recipe.stages import MidtrainSource, MidtrainStage


def example(number, kind="programs"):
    frames = (
        Frame(event="call", source=f"def f{number % 50}(x):\n", locals={"x": str(number)}),
        Frame(event="return", source="    return x\n", value=str(number) * 20),
    )
    context = f"def f{number % 50}(x):\n    return x + {number}\n" + "#\n" * 100
    return Example(trace=Trace(context=context, frames=frames), kind=kind, origin=str(number), function="f")


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([example(0).trace.context], 300)


def source(num, name="a"):
    drawn = Drawn(read=lambda: (example(number, "library") for number in range(num)), places=range(num))
    return Source(config=MidtrainSource(name=name, traces="x"), examples=drawn)


def peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_bytes_held_do_not_grow_with_the_documents(tokenizer, tmp_path):
    """Of each further document some numbers are held: 150 bytes at most, its tokens being 5,000."""
    stage = MidtrainStage(sources=[MidtrainSource(name="a", traces="x")], held_out_share=0.1)

    def train(num):
        found = documents_of([source(num)], stage, tokenizer, CwmRenderer(tokenizer), CwmParser(), seed=0)
        mixture = DocumentMixture(found.learned, {"a": 1.0}, batch_tokens=1024)
        while mixture.epochs_done < 1:
            pack(mixture.next_batch(), max_tokens=1024)
        assert len(found.learned["a"]) + len(found.held_out) == num
        assert (
            sum(one.num_tokens for one in LazyPacks(found.held_out, max_tokens=1024)) == found.held_out.lengths().sum()
        )

    train(20)
    few, many = peak(lambda: train(100)), peak(lambda: train(400))
    assert many - few < 300 * 150, (few, many)
    shards = ShardWriter(tmp_path / "d", rows_per_shard=20)
    for number in range(60):
        shards.add(example(number))
        assert len(shards._rows) < 20
    shards.finish({})
    assert list(read_shards(tmp_path / "d")) == [example(number) for number in range(60)]


def test_each_pass_reads_an_item_once():
    read = []

    def items():
        for number in range(10):
            read.append(number)
            yield number

    drawn = Drawn(read=items, places=[2, 3, 7])
    assert list(drawn) == list(drawn) == [2, 3, 7]
    assert max(Counter(read).values()) == 2
    with pytest.raises(TaskError, match="fewer items"):
        list(Drawn(read=items, places=[2, 10]))


LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@given(LENGTHS, st.integers(0, 2**31))
def test_a_document_comes_back_as_it_went(lengths, seed):
    rng = np.random.default_rng(seed)
    documents = []
    for length in lengths:
        ids = rng.integers(0, 128_256, length + 1)
        mask = rng.random(length) < 0.5
        documents.append(
            Document(
                token_ids=ids[:-1],
                targets=ids[1:],
                loss_mask=mask,
                old_logprobs=np.full(length, np.nan, np.float32),
                written=None if rng.random() < 0.5 or not length else rng.random(length) < 0.5,
                observation_weight=float(rng.integers(0, 3)) / 2,
            )
        )
    kept = stored(documents)
    assert len(kept) == len(documents)
    assert kept.lengths().tolist() == lengths
    for one, before in zip([*kept, kept[-1]], [*documents, documents[-1]], strict=True):
        for name in ("token_ids", "targets", "loss_mask", "weights", "old_logprobs"):
            np.testing.assert_array_equal(getattr(one, name), getattr(before, name))
        assert (one.written is None) == (before.written is None)
    lazy, eager = LazyPacks(kept, max_tokens=40), pack(documents, max_tokens=40)
    assert [one.lengths for one in lazy] == [one.lengths for one in eager]
    assert all(bool((one.token_ids == other.token_ids).all()) for one, other in zip(lazy, eager))


def test_a_plan_reads_no_document(monkeypatch):
    ids = np.arange(9)
    kept = stored(
        Document(token_ids=ids[:-1], targets=ids[1:], loss_mask=ids[1:] > 0, old_logprobs=np.full(8, np.nan))
        for _ in range(50)
    )
    asked = []
    monkeypatch.setattr(StoredDocuments, "__getitem__", lambda self, place: asked.append(place))
    assert len(LazyPacks(kept, max_tokens=16)) == 25
    assert not asked


def test_what_only_reinforcement_knows_is_refused():
    ids = np.arange(3)
    common = {"loss_mask": ids > 0, "old_logprobs": np.zeros(3, np.float32)}
    for changes in ({"advantage": 1.0}, {"weight": 0.5}, {"columns": {"echo": np.zeros(3)}}):
        with pytest.raises(ValueError, match="cannot be stored"):
            StoredDocuments().append(Document(token_ids=ids, targets=ids + 1, **common, **changes))
    with pytest.raises(ValueError, match="shifted by one"):
        StoredDocuments().append(Document(token_ids=ids, targets=ids + 2, **common))


def drawn_before(items, num, group, rng):
    """What ``stratified`` was when it held an object for each item."""
    groups = {}
    for place, item in enumerate(items):
        groups.setdefault(group(item), []).append(place)
    turns = []
    for places in groups.values():
        rng.shuffle(places)
        turns += [(turn, rng.random(), place) for turn, place in enumerate(places)]
    return [items[place] for place in sorted(place for _, _, place in sorted(turns)[:num])]


@given(st.lists(st.integers(0, 8), max_size=60), st.integers(1, 60), st.integers())
def test_draws_for_a_seed_are_what_they_were(groups, num, seed):
    items = list(enumerate(groups))
    found = stratified(items, num, group=lambda one: str(one[1]), rng=random.Random(seed))
    expected = drawn_before(items, num, lambda one: one[1], random.Random(seed)) if len(items) > num else items
    assert found == expected


GROUPS = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=4), min_size=1, max_size=60)


@given(GROUPS, st.sampled_from([0.02, 0.2, 0.45]), st.integers())
def test_what_is_held_out_is_about_the_share(items, share, seed):
    grouped = Grouped()
    for groups in items:
        grouped.add([("function", str(one)) for one in groups])
    held = {int(one) for one in grouped.hold_out(share, random.Random(seed))}
    names = {digest(("function", str(number))): number for number in range(13)}
    own = Counter(some[0] for some in items)
    parts = Counter(one for some in items for one in some[1:] if one != some[0])
    if len(own) < 2:
        assert not held
        return
    chosen = [names[one] for one in held]
    wanted, count = max(1, round(share * len(items))), sum(own[one] for one in chosen)
    assert 0 < len(chosen) < len(own)
    assert count >= wanted or len(chosen) == len(own) - 1
    assert count - max(own[one] for one in chosen) < wanted
    costly = [one for one in own if parts[one] > own[one]]
    if any(one in costly for one in chosen):  # they come last: none of the others was left
        assert len([one for one in own if one not in costly and one not in chosen]) <= 0
    sides = grouped.sides(np.array(sorted(held), dtype=np.uint64))
    for groups, side in zip(items, sides, strict=True):
        expected = 1 if groups[0] in chosen else -1 if set(groups[1:]) & set(chosen) else 0
        assert side == expected
