"""What a draw costs: an order is made once an epoch, and a weighted draw visits a few tasks, not all."""

import random

import pytest

from verigym.agent.trajectory import Trajectory
from verigym.envs.task import Task
from verigym.trainer.recipe.config import DifficultyConfig
from verigym.trainer.sampling import difficulty, rollouts
from verigym.trainer.sampling.difficulty import DifficultyStream
from verigym.trainer.sampling.rollouts import TaskStream, shuffled


def tasks_of(count):
    return [Task(id=str(number), family="f", prompt="") for number in range(count)]


def told(task, passed):
    return Trajectory(task_id=task.id, family="f", ending="answered", passed=passed, reward=float(passed))


@pytest.mark.parametrize("make", [TaskStream, lambda tasks: DifficultyStream(tasks, DifficultyConfig())])
def test_an_order_is_made_once_an_epoch(make, monkeypatch):
    made = []

    def counted(count, seed, epoch):
        made.append(epoch)
        return shuffled(count, seed, epoch)

    monkeypatch.setattr(rollouts, "shuffled", counted)
    monkeypatch.setattr(difficulty, "shuffled", counted)
    stream = make(tasks_of(100))
    drawn = [task.id for _ in range(250) for task in stream.take(1)]
    assert made == [0, 1, 2]
    assert sorted(drawn[:100], key=int) == [str(number) for number in range(100)]


def test_the_order_is_what_it_was():
    order = list(range(20))
    random.Random("7/1").shuffle(order)
    stream = TaskStream(tasks_of(20), seed=7)
    stream.take(20)
    assert [task.id for task in stream.take(20)] == [str(place) for place in order]
    again = TaskStream(tasks_of(20), seed=7)
    again.load_state_dict({"position": 25, "num_tasks": 20})
    assert [task.id for task in again.take(15)] == [str(place) for place in order[5:]]


FRONTIER = DifficultyConfig(order="frontier", rest_epochs=1)


def test_a_weighted_draw_visits_few_tasks(monkeypatch):
    visited = []
    weight = DifficultyStream._weight
    monkeypatch.setattr(DifficultyStream, "_weight", lambda self, index: visited.append(index) or weight(self, index))
    stream = DifficultyStream(tasks_of(5000), FRONTIER)
    stream.take(1)
    visited.clear()
    for _ in range(50):
        (task,) = stream.take(1)
        stream.observe([told(task, True), told(task, False)])
    assert len(visited) <= 100


def test_an_old_state_draws_on_as_it_did_and_a_new_one_says_its_version():
    stream = DifficultyStream(tasks_of(50), FRONTIER, seed=3)
    stream.take(5)
    state = stream.state_dict()
    assert state["version"] == 2
    again = DifficultyStream(tasks_of(50), FRONTIER, seed=3)
    again.load_state_dict(state)
    assert [task.id for task in again.take(100)] == [task.id for task in stream.take(100)]

    old = {key: value for key, value in state.items() if key != "version"}
    resumed = DifficultyStream(tasks_of(50), FRONTIER, seed=3)
    resumed.load_state_dict(old)
    expected = [random.Random(f"3/draw/{number}").choices(range(50), [0.25] * 50)[0] for number in range(5, 45)]
    assert [int(task.id) for task in resumed.take(40)] == expected
    assert resumed.state_dict()["version"] == 1


def test_who_rests_is_not_drawn_until_it_wakes():
    """Against the definition: of every draw the weights are those of the tasks awake at that moment."""
    stream = DifficultyStream(tasks_of(12), FRONTIER, seed=1)
    draw = random.Random(5)
    for _ in range(200):
        epoch = stream._current_epoch()
        (task,) = stream.take(1)
        assert stream._back[int(task.id)] <= epoch
        stream.observe([told(task, draw.random() < 0.5)])
        if sum(back <= stream._current_epoch() for back in stream._back) < 3:
            break
