"""Predicted frames against true ones."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.rewards.trace import PARTIAL, score_frame, score_trace, score_value


@dataclass(frozen=True)
class Frame:
    event: str
    source: str = "x\n"
    locals: dict = field(default_factory=dict)
    value: str | None = None


TEXTS = st.sampled_from(["1", "2", "[1]", "..", "'a'"])
FRAMES = st.lists(
    st.one_of(
        st.builds(Frame, event=st.sampled_from(["call", "line"]), locals=st.dictionaries(st.sampled_from("ab"), TEXTS)),
        st.builds(Frame, event=st.sampled_from(["return", "exception"]), value=st.one_of(st.none(), TEXTS)),
    ),
    max_size=6,
)


@given(FRAMES)
def test_the_truth_scores_one(frames):
    score = score_trace(frames, frames)
    assert (score.value, score.passed) == ((1.0, True) if frames else (0.0, False))
    assert all(score_frame(frame, frame).value == 1.0 for frame in frames)


@given(FRAMES, FRAMES)
def test_anything_else_scores_at_most_the_partial_credit(predicted, true):
    score = score_trace(predicted, true)
    assert score.passed is (predicted == true and bool(true))
    assert score.value == 1.0 if score.passed else score.value <= PARTIAL
    if predicted and true:
        one = score_frame(predicted[0], true[0])
        assert one.passed is (predicted[0] == true[0])
        assert one.value == 1.0 if one.passed else one.value < PARTIAL


@given(FRAMES, st.integers(0, 5))
def test_a_longer_right_prefix_never_scores_less(true, cut):
    wrong = Frame(event="line", source="?", locals={"z": "9"})
    scores = [score_trace([*true[:length], wrong], true).value for length in range(len(true))]
    assert scores == sorted(scores)
    assert score_trace(true[:cut], true).passed is (cut >= len(true) > 0)


def test_a_trace_that_does_not_end_is_not_exact():
    frames = [Frame(event="return", value="1")]
    assert not score_trace(frames, frames, ended=False).passed
    assert not score_trace([*frames, *frames], frames).passed


def test_parts_of_a_frame():
    true = Frame(event="line", source="    y = 1\n", locals={"a": "1", "b": "[1, 2]", "c": ".."})
    near = Frame(event="line", source="y = 1", locals={"a": "1", "b": "[1,2]", "c": "..", "d": "0"})
    score = score_frame(near, true)
    assert score.breakdown == {"passed": 0.0, "event": 1.0, "source": 1.0, "values": 0.5}
    assert score.value == pytest.approx(PARTIAL * 2.5 / 3)
    assert score_frame(near, true, same=lambda a, b: eval(a) == eval(b)).breakdown["values"] == 0.75
    other = Frame(event="return", source="y = 1", value="1")
    assert score_frame(other, true).breakdown == {"passed": 0.0, "event": 0.0, "source": 1.0, "values": 0.0}


def test_nobody_is_asked_whether_an_unchanged_value_equals_one():
    unchanged, value = Frame(event="line", locals={"a": ".."}), Frame(event="line", locals={"a": "1"})
    for predicted, true in ((unchanged, value), (value, unchanged)):
        assert score_frame(predicted, true, same=lambda a, b: True).breakdown["values"] == 0.0


def test_the_end_of_the_run():
    frame = Frame(event="line")
    assert score_frame(None, None).value == 1.0
    assert score_frame(None, frame).value == score_frame(frame, None).value == 0.0


def test_values():
    assert score_value("3", "3").value == 1.0
    assert score_value("3.0", "3").value == 0.0
    assert score_value("3.0", "3", same=lambda a, b: True).passed
    assert score_value(None, "3", same=lambda a, b: True).value == 0.0


def test_shares_are_of_the_longer_trace():
    """Frames that are missing, and frames too many, count as wrong ones."""
    true = [Frame(event="line"), Frame(event="line"), Frame(event="line"), Frame(event="return", value="1")]
    for predicted, longer in ((true[:1], true), (true, true[:1])):
        score = score_trace(predicted, longer)
        assert (score.value, score.passed) == (pytest.approx(PARTIAL / 4), False)
