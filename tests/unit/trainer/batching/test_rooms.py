"""Packing by a tree: the packs of first fit, in steps that grow with the documents."""

import random
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.trainer.batching.documents import Document
from verigym.trainer.batching.packs import check_lengths, plan_packs
from verigym.trainer.batching.rooms import Rooms

LENGTHS = st.lists(st.integers(0, 40), max_size=60)


def documents_of(lengths):
    return [
        Document(
            token_ids=np.zeros(length, np.int64),
            targets=np.zeros(length, np.int64),
            loss_mask=np.ones(length, bool),
            old_logprobs=np.zeros(length, np.float32),
        )
        for length in lengths
    ]


def first_fit(lengths, most, ways):
    """The definition, by trying every bin."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    bins, room = [], []
    for index in order:
        place = next((number for number, left in enumerate(room) if left >= lengths[index]), None)
        if place is None:
            bins.append([])
            room.append(most)
            place = len(bins) - 1
        bins[place].append(index)
        room[place] -= lengths[index]
    if ways == 1:
        return bins
    count = min(-(-len(bins) // ways) * ways, len(lengths))
    evened, sizes = [[] for _ in range(count)], [0] * count
    for index in order:
        place = min(range(count), key=lambda number: (sizes[number], number))
        evened[place].append(index)
        sizes[place] += lengths[index]
    return evened if max(sizes, default=0) <= most else bins


@given(LENGTHS, st.integers(40, 100), st.integers(1, 5))
def test_the_packs_are_those_of_first_fit(lengths, most, ways):
    assert plan_packs(documents_of(lengths), max_tokens=most, ways=ways) == first_fit(lengths, most, ways)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=80))
def test_the_first_room_is_found(steps):
    rooms, known = Rooms(), []
    for adds, size in steps:
        if adds:
            assert rooms.add(size) == len(known)
            known.append(size)
        found = rooms.first(size)
        assert found == next((number for number, left in enumerate(known) if left >= size), None)
        if found is not None:
            rooms.take(found, size)
            known[found] -= size


def lines_run(work):
    """Lines of Python that a call runs."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(("shortest", "longest", "ways"), [(600, 1000, 1), (1, 1000, 1), (5, 50, 8)])
def test_four_times_the_documents_are_about_four_times_the_steps(shortest, longest, ways):
    draw = random.Random(0)
    costs = []
    for count in (500, 2000):
        documents = documents_of([draw.randint(shortest, longest) for _ in range(count)])
        costs.append(lines_run(lambda documents=documents: plan_packs(documents, max_tokens=1000, ways=ways)))
    assert costs[1] < 5.5 * costs[0]


def test_the_longest_is_found_without_packing():
    check_lengths([], 10)
    check_lengths([10, 3], 10)
    with pytest.raises(ValueError, match=r"a document has 11 tokens, and a microbatch holds 10; raise"):
        check_lengths([3, 11], 10)
