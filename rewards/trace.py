"""Predicted execution against what happened: frames compared part by part. Pure: evidence in, number out.

Whether two texts of values say the same is decided by whoever has the sandbox, and handed in as ``same``; equal texts
need no asking.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from .score import Score

Same = Callable[[str, str], bool]
"""(predicted text of a value, true text) -> whether they are the same value."""

UNCHANGED = ".."
PARTIAL = 0.5
"""What a prediction that is not exact can earn at most."""


class FrameLike(Protocol):
    """A frame of a trace (model.chat.trace.Frame)."""

    @property
    def event(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def locals(self) -> Mapping[str, str]: ...

    @property
    def value(self) -> str | None: ...


def equal_text(predicted: str, true: str) -> bool:
    return predicted == true


def score_value(predicted: str | None, true: str, *, same: Same = equal_text) -> Score:
    """1 for the value that was returned, else 0. No prediction is wrong."""
    right = predicted is not None and (predicted == true or same(predicted, true))
    detail = "no value was predicted" if predicted is None else f"predicted {predicted[:80]}, it is {true[:80]}"
    return Score(value=float(right), passed=right, breakdown={"passed": float(right)}, detail=detail)


def frame_parts(predicted: FrameLike, true: FrameLike, *, same: Same = equal_text) -> dict[str, float]:
    """The share of each part that is right: "event", "source" (indentation and line break aside) and "values".

    Values are counted over the names that either frame has, so that an invented variable costs as much as one left
    out; a frame of another event has no right values.
    """
    event = predicted.event == true.event
    values = float(event) * _right_values(predicted, true, same)
    return {
        "event": float(event),
        "source": float(predicted.source.strip() == true.source.strip()),
        "values": values,
    }


def is_exact(parts: Mapping[str, float]) -> bool:
    return all(part == 1.0 for part in parts.values())


def score_frame(predicted: FrameLike | None, true: FrameLike | None, *, same: Same = equal_text) -> Score:
    """The next frame. None stands for the end of the run: predicted where it is, it is exact.

    Returns:
        value 1 where every part is right, else at most ``PARTIAL``: that much times the mean of the parts.
    """
    if predicted is None or true is None:
        right = predicted is true
        return _scored({"frames": float(right)}, exact=right, credit=0.0, detail="the end of the run" if right else "")
    parts = frame_parts(predicted, true, same=same)
    wrong = [name for name, part in parts.items() if part < 1.0]
    detail = f"wrong: {', '.join(wrong)}" if wrong else "every part is right"
    return _scored(parts, exact=not wrong, credit=sum(parts.values()) / len(parts), detail=detail)


def score_trace(
    predicted: Sequence[FrameLike], true: Sequence[FrameLike], *, ended: bool = True, same: Same = equal_text
) -> Score:
    """A whole trace, frame by frame at the same place.

    Args:
        ended: whether the prediction said that the run is over.
    Returns:
        value 1 where it is exact, else ``PARTIAL`` times the share of the longer trace's frames that are right before
        the first wrong one. Parts: "frames" (the share of right frames, wherever they stand), "prefix", "return"
        (whether the last value is right) and "length".
    """
    marks = [is_exact(frame_parts(mine, other, same=same)) for mine, other in zip(predicted, true)]
    longest = max(len(predicted), len(true), 1)
    first_wrong = marks.index(False) if False in marks else len(marks)
    exact = ended and len(predicted) == len(true) and all(marks) and bool(true)
    returned = (
        bool(predicted)
        and bool(true)
        and predicted[-1].event == true[-1].event
        and _same_value(predicted[-1].value, true[-1].value, same)
    )
    parts = {
        "frames": sum(marks) / longest,
        "prefix": first_wrong / longest,
        "return": float(returned),
        "length": min(len(predicted), len(true)) / longest,
    }
    if exact:
        detail = f"{len(true)} frames, all right"
    else:
        detail = f"{first_wrong} of {len(true)} frames are right before the first wrong one"
    return _scored(parts, exact=exact, credit=parts["prefix"], detail=detail)


def _right_values(predicted: FrameLike, true: FrameLike, same: Same) -> float:
    if true.event in ("return", "exception"):
        return float(_same_value(predicted.value, true.value, same))
    names = {*predicted.locals, *true.locals}
    if not names:
        return 1.0
    right = sum(_same_value(predicted.locals.get(name), true.locals.get(name), same) for name in names)
    return right / len(names)


def _same_value(predicted: str | None, true: str | None, same: Same) -> bool:
    if predicted is None or true is None or UNCHANGED in (predicted, true):
        return predicted == true
    return predicted == true or same(predicted, true)


def _scored(parts: Mapping[str, float], *, exact: bool, credit: float, detail: str) -> Score:
    value = 1.0 if exact else PARTIAL * credit
    return Score(value=value, passed=exact, breakdown={"passed": float(exact), **parts}, detail=detail)
