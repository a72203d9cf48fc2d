"""Families in one stream: each in its share, each task as often as the others, also after a resume."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.envs.task import Task
from verigym.trainer.sampling.mixture import TaskMixture


def tasks_of(name, count=5):
    return [Task(id=f"{name}{number}", family=name, prompt="") for number in range(count)]


def mixture_of(weights, seed=0):
    names = [f"f{number}" for number in range(len(weights))]
    return TaskMixture({name: tasks_of(name) for name in names}, dict(zip(names, weights)), seed=seed)


weights = st.lists(st.sampled_from([0.1, 1, 2, 3, 5, 10, 50]), min_size=1, max_size=8)
counts = st.lists(st.integers(0, 9), max_size=20)


@given(weights, counts)
def test_each_family_has_had_its_share_to_within_one_task(weights, counts):
    mixture, had, total = mixture_of(weights), Counter(), 0
    for count in counts:
        taken = mixture.take(count)
        assert len(taken) == count
        had.update(task.family for task in taken)
        total += count
        for number, weight in enumerate(weights):
            assert abs(had[f"f{number}"] - total * weight / sum(weights)) < 1 + 1e-6


@given(weights, counts, counts, st.integers(0, 3))
def test_a_resumed_mixture_goes_on_as_if_nothing_had_happened(weights, before, after, seed):
    whole, first, second = (mixture_of(weights, seed) for _ in range(3))
    for count in before:
        assert whole.take(count) == first.take(count)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for count in after:
        assert second.take(count) == whole.take(count)


def test_each_task_once_an_epoch_in_an_order_of_its_own():
    mixture = mixture_of([1, 1])
    taken = [task.id for task in mixture.take(20) if task.family == "f0"]
    assert sorted(taken[:5]) == sorted(taken[5:]) == [f"f0{number}" for number in range(5)]
    assert taken[:5] != taken[5:]
    assert [task.id for task in mixture_of([1, 1], seed=1).take(20) if task.family == "f0"] != taken


def test_a_task_knows_the_family_it_was_given_under():
    math, hard = tasks_of("math", 2), [Task(id="x", family="math", prompt="")]
    mixture = TaskMixture({"easy": math, "hard": hard}, {"easy": 1, "hard": 1})
    assert [mixture.name_of(task) for task in (*math, *hard)] == ["easy", "easy", "hard"]
    with pytest.raises(ValueError, match="task 'math0' is in 'easy' and in 'hard'"):
        TaskMixture({"easy": math, "hard": math}, {"easy": 1, "hard": 1})


def test_a_state_of_other_tasks_is_refused():
    state = mixture_of([1, 2]).state_dict()
    other = TaskMixture({"f0": tasks_of("f0", 2), "f1": tasks_of("f1")}, {"f0": 1, "f1": 2})
    with pytest.raises(ValueError, match="5 tasks, here are 2"):
        other.load_state_dict(state)
