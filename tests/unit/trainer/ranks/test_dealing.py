"""Packs for many ranks: the same number for each, and nothing lost, doubled or too long."""

import weakref
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import deal, join, plan_packs
from verigym.trainer.ranks.team import PACKS_AT_ONCE, TeamLearning


class Lazy(Sequence):
    """Packs that are made when they are asked for; how many at once."""

    def __init__(self, length):
        self.length, self.alive, self.most = length, 0, 0

    def __len__(self):
        return self.length

    def __getitem__(self, place):
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(self.length))]
        if not place < self.length:
            raise IndexError(place)
        made = join(documents([1 + place % 7]))
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(made.token_ids, self.ended)
        return made

    def ended(self):
        self.alive -= 1


def test_packs_to_measure_on_are_made_a_few_at_a_time():
    def call(name, *, each):
        tokens = sum(pack.num_tokens for one in each for pack in one["packs"] if not pack.filler)
        return 0.5 * tokens, float(tokens)

    learning = TeamLearning.__new__(TeamLearning)
    learning._team = SimpleNamespace(call=call)
    learning._layout = SimpleNamespace(replicate=1, shard=2, token_split=1)
    packs = Lazy(200)
    assert learning.mean_loss(packs) == 0.5
    assert packs.most <= 4 * PACKS_AT_ONCE


lengths_of = st.lists(st.integers(1, 20), min_size=1, max_size=40)


def documents(lengths: list[int]) -> list[Document]:
    return [
        Document(
            token_ids=np.zeros(length, np.int64),
            targets=np.zeros(length, np.int64),
            loss_mask=np.ones(length, bool),
            old_logprobs=np.zeros(length, np.float32),
        )
        for length in lengths
    ]


@given(lengths_of, st.integers(20, 60), st.integers(1, 5))
def test_packs_for_many_ranks_are_whole_and_within_the_budget(lengths, max_tokens, ways):
    plan = plan_packs(documents(lengths), max_tokens=max_tokens, ways=ways)
    assert sorted(index for members in plan for index in members) == list(range(len(lengths)))
    assert all(members for members in plan)
    assert max(sum(lengths[index] for index in members) for members in plan) <= max_tokens


def test_documents_are_dealt_out_evenly():
    # One pack would hold them all, and three ranks would wait for the fourth.
    plan = plan_packs(documents([8, 7, 6, 5, 4, 3, 2, 1]), max_tokens=100, ways=4)
    assert plan == [[0, 7], [1, 6], [2, 5], [3, 4]]
    # Five packs would be two rounds of four with three empty.
    assert len(plan_packs(documents([10] * 10), max_tokens=20, ways=4)) == 8
    # Where it cannot be evened out, the packs are those of one rank.
    assert plan_packs(documents([7, 5, 4, 4, 4]), max_tokens=12, ways=2) == [[0, 1], [2, 3, 4]]  # dealt out: 11 and 13


@given(lengths_of, st.integers(1, 5))
def test_every_rank_has_as_many_packs_and_about_as_many_tokens(lengths, ways):
    packs = [join([one]) for one in documents(lengths)]
    shares = deal(packs, ways)
    assert len(shares) == ways
    assert {len(share) for share in shares} == {-(-len(packs) // ways)}
    dealt = [number for share in shares for number, _ in share if number is not None]
    assert sorted(dealt) == list(range(len(packs)))
    for share in shares:
        for number, pack in share:
            assert pack is packs[number] if number is not None else pack.filler
            assert number is not None or not pack.loss_mask.any()
    totals = [sum(pack.num_tokens for _, pack in share if not pack.filler) for share in shares]
    assert max(totals) - min(totals) <= max(lengths)


def test_the_ranks_share_a_divisor():
    """Each rank adds its part up with the others': together they divide by the step's."""
    called = []
    layout = SimpleNamespace(replicate=2, shard=2, token_split=1)
    team = TeamLearning.__new__(TeamLearning)
    team._layout = layout
    team._team = SimpleNamespace(call=lambda name, *, each: called.append(each) or {})
    packs = [join([one]) for one in documents([5, 4, 3, 2])]
    team.step(packs, divisor=20.0)
    [each] = called
    assert len(each) == 4
    assert sum(one["divisor"] for one in each) == 20.0
