"""A teacher that knows no more is told of, and a student that collapses is stopped."""

import logging

import pytest

from verigym.trainer.loops.collapse import (
    DISTANCE,
    DIVERGENCES,
    ENTROPY,
    GAIN,
    LENGTH,
    REWARD,
    STUDENT,
    TEACHER,
    CollapseWatch,
)
from verigym.trainer.recipe.distillation import CollapseConfig


def watch(**settings) -> CollapseWatch:
    return CollapseWatch(CollapseConfig(window=2, **settings))


def run(one: CollapseWatch, name: str, values: list[float]) -> list[str]:
    return [one.observe({name: value}) for value in values]


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        (ENTROPY, [1.0, 1.0, 0.5, 0.05, 0.04], "entropy was 1 in the first 2 steps and is 0.045, less than 0.05"),
        (REWARD, [0.5, 0.5, 0.6, 0.2, 0.2], "the mean reward was 0.5 in the first 2 steps and is 0.2, less than 0.5"),
        (LENGTH, [10, 10, 30, 60, 60], "is 60, more than 5 times"),
        (LENGTH, [10, 10, 1.5, 0.6, 0.5], "sampled tokens of an episode was 10"),
        (DIVERGENCES[0], [0.1, 0.1, 0.1, 0.5, 1.9], "distance to the teacher was 0.1"),
    ],
)
def test_what_leaves_its_bounds_ends_the_run_at_once_and_not_before(name, values, told):
    found = run(watch(), name, values)
    assert found[:-1] == [""] * (len(values) - 1)
    assert told in found[-1]
    off = {
        "least_entropy": None,
        "least_length": None,
        "most_length": None,
        "most_divergence": None,
        "least_reward": None,
    }
    assert run(watch(**off), name, values) == [""] * len(values)


def test_what_stays_goes_on_and_a_resume_goes_on_with_it():
    one = watch()
    assert run(one, ENTROPY, [1.0, 1.0, 0.3, 0.2, 0.1]) == [""] * 5
    other = watch()
    other.load_state_dict(one.state_dict())
    assert run(other, ENTROPY, [0.04]) == [""]
    assert "collapses" in run(other, ENTROPY, [0.04])[0]


def test_a_teacher_is_judged_by_its_gain_over_the_student(caplog):
    with caplog.at_level(logging.WARNING):
        run(watch(), GAIN, [0.01, -0.01] * 5)
    assert caplog.text.count("does not know more") == 1  # once, until it has known more again
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        run(watch(), GAIN, [0.3, 0.2] * 5)
        run(watch(), GAIN, [-1.0] * 4)  # too few to say
    assert caplog.text == ""


def test_a_teacher_is_judged_by_what_it_passes_itself(caplog):
    def passed(one, pairs):
        for teacher, student in pairs:
            one.observe({TEACHER: teacher, STUDENT: student})

    with caplog.at_level(logging.WARNING):
        passed(watch(), [(0.9, 0.5), (0.8, 0.6)] * 5)
        one = watch()
        passed(one, [(0.5, 0.5)] * 4)  # too few to say
        assert caplog.text == ""
        other = watch()
        other.load_state_dict(one.state_dict())
        passed(other, [(0.25, 0.5)] * 4)
    assert caplog.text.count("does not know more") == 1
    assert "over 5 measures it passed 45.0 % of the tasks" in caplog.text
    assert "and the student 50.0 % of the same without (difference -5.0, standard error 5.0)" in caplog.text


def test_a_teacher_that_is_far_from_its_student_is_told_of_once(caplog):
    with caplog.at_level(logging.WARNING):
        one = watch(most_divergence=None)
        run(one, DISTANCE, [1.5] * 3)
        other = watch(most_divergence=None)
        other.load_state_dict(one.state_dict())
        assert caplog.text == ""
        run(other, DISTANCE, [1.7] * 9)
        run(watch(), DISTANCE, [0.1] * 9)
    assert caplog.text.count("far from its student: over 5 steps it found a sampled token 1.58 nats less likely") == 1
