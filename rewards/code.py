"""The score of a program: what its runs gave, test by test. The comparisons are ``rewards.values``."""

from collections.abc import Sequence

from .score import Score
from .values import (
    compare_lines,
    compare_output,
    compare_returned,
    compare_value,
    compare_with_reference,
    plain_equal,
)

__all__ = [
    "compare_lines",
    "compare_output",
    "compare_returned",
    "compare_value",
    "compare_with_reference",
    "plain_equal",
    "score_tests",
]


def score_tests(passed: Sequence[bool], detail: str = "") -> Score:
    """1 where every test passed, else 0; the fraction that passed is a part. No test at all is 0."""
    fraction = sum(passed) / len(passed) if passed else 0.0
    resolved = bool(passed) and all(passed)
    return Score(
        value=float(resolved), passed=resolved, breakdown={"passed": float(resolved), "tests": fraction}, detail=detail
    )
