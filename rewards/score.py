"""The score of one submission, with its parts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

NOT_TRUSTED = "not trusted"
"""How the ``detail`` of a score begins whose tests all passed while nothing speaks for some that decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a submission earned.

    Attributes:
        value: the reward, unitless, in [0, 1].
        passed: the benchmark's own verdict (what pass@1 counts).
        breakdown: named parts, each in [0, 1].
        detail: one line for people: which rule or test decided.
        ending: of an episode that was to end with this score, where it has one of its own: "test_timeout" where the
            tests met their time limit; "" otherwise.
    """

    value: float
    passed: bool
    breakdown: Mapping[str, float] = field(default_factory=dict)
    detail: str = ""
    ending: Literal["", "test_timeout"] = ""

    def __post_init__(self) -> None:
        parts = {"value": self.value, **self.breakdown}
        for name, part in parts.items():
            if not 0.0 <= part <= 1.0:  # NaN fails this too
                raise ValueError(f"score part {name!r} is {part}, outside [0, 1]; scale it before building a Score")


def verdict(passed: bool, detail: str = "") -> Score:
    """A score that is 1 or 0 and nothing else."""
    return Score(value=float(passed), passed=passed, breakdown={"passed": float(passed)}, detail=detail)
