"""Prompts go where most of them has been computed, and nobody is overrun."""

from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.agent import columns, routing
from verigym.agent.columns import Ids
from verigym.agent.routing import BLOCK, PrefixRouter


def ids(start, blocks):
    return tuple(range(start, start + blocks * BLOCK))


def test_a_turn_follows_the_turn_before():
    router = PrefixRouter()
    first = ids(0, 3)
    assert router.choose(first, [0, 0, 0]) == 0
    router.remember(first, 2)
    assert router.choose(first + ids(900, 2), [1, 1, 1]) == 2
    assert router.choose(ids(5000, 3), [1, 1, 1]) == 0  # another prompt


def test_tokens_of_a_prompt_are_made_no_objects(monkeypatch):
    """A prompt of 128k tokens is compared in a millisecond, by its bytes."""
    router, prompt = PrefixRouter(), Ids(range(100 * BLOCK))
    sampled = tuple(range(7, 7 + BLOCK))
    monkeypatch.setattr(Ids, "_decoded", lambda *_: pytest.fail("tokens were unpacked"))
    router.remember(prompt, 1, sampled)
    assert router.choose(prompt + sampled, [0, 0]) == 1
    assert len(router._seen) == 101
    assert len(prompt._data) == 101 * BLOCK  # only the next turn has grown it


class Counted(OrderedDict):
    num = 0

    def get(self, *args):
        Counted.num += 1
        return super().get(*args)

    def __setitem__(self, *args):
        Counted.num += 1
        super().__setitem__(*args)


@pytest.mark.parametrize("turns", [16, 256])
def test_a_turn_hashes_and_looks_up_what_it_adds(turns, monkeypatch):
    """Of a dialogue whose prompts share an array, as an episode's do."""
    router, hashed = PrefixRouter(), []
    router._seen, Counted.num = Counted(), 0
    for module in (columns, routing):
        monkeypatch.setattr(module, "hash", lambda key: hashed.append(1) or hash(key), raising=False)
    prompt = Ids(range(5 * BLOCK))
    for turn in range(turns):
        assert router.choose(prompt, [turn % 3, 1, 1]) == 0
        sampled = range(turn, turn + 2 * BLOCK)
        router.remember(prompt, 0, sampled)
        prompt = prompt + sampled + range(2 * BLOCK)
    assert len(hashed) <= 6 * turns + 10
    assert Counted.num <= 12 * turns + 10


def test_a_second_continuation_has_hashes_of_its_own():
    prompt = Ids(range(3 * BLOCK))
    first, second = prompt + range(BLOCK), prompt + range(7, 7 + BLOCK)
    assert first.block_hashes() == Ids(first.tolist()).block_hashes()
    assert second.block_hashes() == Ids(second.tolist()).block_hashes() != first.block_hashes()
    assert first[BLOCK:].block_hashes() == Ids(first.tolist()[BLOCK:]).block_hashes()
    assert first[: BLOCK + 1].block_hashes() == first.block_hashes()[:1]


def test_the_longest_shared_beginning_counts():
    router = PrefixRouter()
    router.remember(ids(0, 1) + ids(700, 3), 0)  # the same instructions, another task
    router.remember(ids(0, 4), 1)
    assert router.choose(ids(0, 5), [0, 0]) == 1
    assert router.choose(ids(0, 1) + ids(700, 4), [0, 0]) == 0
    assert router.choose(ids(0, 1)[: BLOCK - 1], [1, 0]) == 1  # less than a block is nothing known


def test_the_least_load_where_the_other_has_too_much():
    router = PrefixRouter()
    router.remember(ids(0, 4), 0)
    assert router.choose(ids(0, 4), [2, 0]) == 0
    assert router.choose(ids(0, 4), [3, 0]) == 1
    assert router.choose(ids(0, 4), [25, 20]) == 0
    assert router.choose(ids(0, 4), [26, 20]) == 1


def test_what_is_forgotten():
    router = PrefixRouter(most_blocks=4)
    router.remember(ids(0, 4), 1)
    router.remember(ids(9000, 2), 1)  # the last two blocks of the other make room
    assert len(router._seen) == 4
    assert router.choose(ids(0, 4), [0, 0]) == 1
    router.remember(ids(700, 3), 1)
    assert router.choose(ids(0, 4), [0, 0]) == 1  # its beginning was asked for last
    router.remember(ids(8000, 4), 1)
    assert router.choose(ids(0, 4), [0, 0]) == 0
    router.remember(ids(9000, 2), 1)
    assert router.choose(ids(9000, 2), [0, 0]) == 1
    router.forget(1)
    assert router.choose(ids(9000, 2), [0, 0]) == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=30), st.lists(st.integers(0, 9), min_size=1))
def test_nobody_has_much_more_than_the_least(history, loads):
    router = PrefixRouter()
    for start, blocks in history:
        router.remember(ids(start * 50, blocks), start % len(loads))
    chosen = router.choose(ids(50, 4), loads)
    assert loads[chosen] <= max(min(loads) + 2, 1.25 * min(loads))
