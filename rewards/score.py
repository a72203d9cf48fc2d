"""The score of one submission, with its parts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

NOT_TRUSTED = "not trusted"
"""How the ``detail`` of a score begins whose tests all passed while nothing speaks for some that decide."""


ScoredEnding = Literal["", "test_timeout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a submission earned.

    Attributes:
        value: the reward, unitless, within ``bounds``.
        passed: the benchmark's own verdict (what pass@1 counts).
        breakdown: named parts, each finite.
        detail: one line for people: which rule or test decided.
        ending: of an episode that was to end with this score, where it has one of its own: "test_timeout" where the
            tests met their time limit; "" otherwise.
        bounds: the least and the most that the value can be.
        others: what other speakers earned, by their names (the opponent of a game); within the bounds too.
    """

    value: float
    passed: bool
    breakdown: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""
    ending: ScoredEnding = ""
    bounds: tuple[float, float] = (0.0, 1.0)
    others: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        low, high = self.bounds
        for name, part in {"value": self.value, **self.others}.items():
            if not low <= part <= high or not math.isfinite(part):  # NaN fails the first, too
                raise ValueError(
                    f"score part {name!r} is {part}, outside [{low:g}, {high:g}]; scale it before building a Score, or "
                    "state other bounds"
                )
        for name, part in self.breakdown.items():
            if not math.isfinite(part):
                raise ValueError(f"score part {name!r} is {part}; a finite number is expected")


def verdict(passed: bool, detail: str = "") -> Score:
    """A score that is 1 or 0 and nothing else."""
    return Score(value=float(passed), passed=passed, breakdown={"passed": float(passed)}, detail=detail)


def plain(value: Any) -> Any:
    """A scalar of numpy's or torch's as Python's own; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
