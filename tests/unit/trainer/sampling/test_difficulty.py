"""Tasks by measured pass rate: who rests, in which order the others come, and that a resume goes on exactly."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.agent.trajectory import Trajectory
from verigym.envs.task import Task
from verigym.errors import TrainingError
from verigym.trainer.recipe.config import DifficultyConfig
from verigym.trainer.sampling.difficulty import DifficultyStream
from verigym.trainer.sampling.mixture import TaskMixture
from verigym.trainer.sampling.rollouts import TaskStream


def tasks_of(count, family="f"):
    return [Task(id=str(number), family=family, prompt="") for number in range(count)]


def episodes(task, *passed):
    """Of one group; None is a failure of the infrastructure."""
    ending = "answered"
    return [
        Trajectory(task_id=task.id, family=task.family, ending=ending, passed=one, reward=one and float(one))
        for one in passed
    ]


def stream_of(count=4, seed=0, **config):
    return DifficultyStream(tasks_of(count), DifficultyConfig(**config), seed=seed, name="math")


def epoch(stream, count):
    return [task.id for task in stream.take(count)]


def test_without_rates_it_is_the_order_of_any_stream():
    plain = TaskStream(tasks_of(5), seed=3)
    assert stream_of(5, seed=3).take(12) == plain.take(12)


def test_those_that_always_or_never_pass_rest_for_so_many_epochs_and_come_back():
    stream = stream_of(rest_epochs=2)
    for task in stream.take(4):
        passed = {"0": (True, True), "1": (False, False)}.get(task.id, (True, False))
        stream.observe(episodes(task, *passed))
    assert sorted(epoch(stream, 2)) == ["2", "3"]
    assert sorted(epoch(stream, 2)) == ["2", "3"]
    assert sorted(epoch(stream, 4)) == ["0", "1", "2", "3"]


def test_a_rate_outside_the_bounds_rests_and_failures_say_nothing():
    stream = stream_of(low=0.25, high=0.75, rest_epochs=0)
    results = {"0": (1, 8), "1": (7, 8), "2": (4, 8), "3": (0, 0)}
    stream.measure(results)
    for task in stream.take(2):
        stream.observe(episodes(task, None, None))
    assert Counter(epoch(stream, 4)) == {"2": 2, "3": 2}
    assert [stream.rate(task) for task in tasks_of(4)] == [1 / 8, 7 / 8, 1 / 2, None]


def test_later_episodes_count_more_and_a_task_that_has_become_solvable_stays():
    stream = stream_of(2, memory=0.5, rest_epochs=1)
    stream.observe(episodes(tasks_of(2)[0], False, False))
    stream.observe(episodes(tasks_of(2)[0], True, False))
    assert stream.rate(tasks_of(2)[0]) == pytest.approx(1 / 3)
    assert sorted(epoch(stream, 2)) == ["0", "1"]


def test_easy_ones_come_first():
    stream = stream_of(order="easy_first")
    stream.measure({"0": (1, 4), "1": (3, 4), "3": (2, 8)})
    assert epoch(stream, 4)[:2] == ["1", "2"]  # the unmeasured one counts as one half


def test_the_frontier_comes_most_often():
    stream = stream_of(3, order="frontier", low=0.0, high=1.0)
    stream.measure({"0": (50, 100), "1": (2, 100), "2": (98, 100)})
    counts = Counter(epoch(stream, 400))
    assert counts["0"] > 4 * max(counts["1"], counts["2"])
    assert min(counts.values()) > 0


def test_where_all_rest_the_run_is_told_why():
    stream = stream_of(3, low=0.4)
    stream.measure({"0": (0, 4), "1": (4, 4), "2": (1, 4)})
    with pytest.raises(TrainingError, match=r"'math': all 3 tasks rest; 1 never passed, 1 always, and 1 .*\[0.4, 1\]"):
        stream.take(1)


outcomes = st.lists(st.lists(st.sampled_from([True, False, None]), min_size=1, max_size=3), min_size=30, max_size=30)


@given(
    outcomes,
    st.sampled_from(["random", "easy_first", "frontier"]),
    st.lists(st.integers(1, 4), min_size=2, max_size=7),
    st.integers(0, 6),
    st.integers(0, 3),
)
def test_interrupted_and_resumed_it_is_the_uninterrupted_sequence(outcomes, order, counts, cut, seed):
    def mixture():
        tasks = {"a": tasks_of(4, "a"), "b": tasks_of(3, "b")}
        difficulty = DifficultyConfig(order=order, rest_epochs=1, memory=0.5)
        return TaskMixture(tasks, {"a": 2.0, "b": 1.0}, seed=seed, difficulty=difficulty)

    def run(resume_at):
        current, seen, left = mixture(), [], iter(outcomes)
        for step, count in enumerate(counts):
            if step == resume_at:
                state = json.loads(json.dumps(current.state_dict()))
                current = mixture()
                current.load_state_dict(state)
            try:
                taken = current.take(count)
            except TrainingError as error:
                return [*seen, str(error)]
            seen += [(task.family, task.id) for task in taken]
            for task in taken:
                current.observe(episodes(task, *next(left)))
        return seen

    assert run(resume_at=None) == run(resume_at=cut)


@given(outcomes, st.lists(st.integers(1, 3), min_size=1, max_size=10))
def test_no_task_comes_twice_in_an_epoch_and_none_that_is_awake_is_left_out(outcomes, counts):
    stream, left = stream_of(5, rest_epochs=1), iter(outcomes)
    seen, awake = [], set(range(5))
    for count in counts:
        for _ in range(count):
            begins = not stream._left
            if begins:
                assert set(seen) == {str(index) for index in awake} or not seen
                awake = {index for index, back in enumerate(stream._back) if back <= stream._epoch + 1}
                seen = []
                if not awake:
                    with pytest.raises(TrainingError):
                        stream.take(1)
                    return
            (task,) = stream.take(1)
            assert task.id not in seen
            seen.append(task.id)
            stream.observe(episodes(task, *next(left)))


def test_a_state_of_other_tasks_is_refused():
    with pytest.raises(ValueError, match="4 tasks, here are 5"):
        stream_of(5).load_state_dict(stream_of(4).state_dict())
