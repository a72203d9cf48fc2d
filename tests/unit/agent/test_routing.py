"""Prompts go where most of them has been computed, and nobody is overrun."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    router.remember(ids(9000, 2), 1)  # the first two blocks of the other make room
    assert router.choose(ids(0, 4), [0, 0]) == 0
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
