"""What a verdict is worth: resolved, forged, or resolved with nothing that speaks for it."""

from typing import Literal

from ...errors import GradingError
from ...rewards.score import NOT_TRUSTED, Score
from .rounds import Finding

Untrusted = Literal["fail", "accept", "drop"]
"""A rule for patches whose tests pass while no twin can be made of some that decide: 0, 1, or no score at all."""


def believed(score: Score, finding: Finding, untrusted: Untrusted) -> Score:
    """The score of a run that resolved, after its tests were run again as twins.

    Returns:
        ``score`` itself; or 0 where the outcome is forged; or, where tests have no twin, what the rule says, with
        ``breakdown["trusted"]`` 0 and a ``detail`` that begins with "not trusted".
    Raises:
        GradingError: tests have no twin, and the rule is "drop": the sample counts for nothing, as after a failure
            of the machine.
    """
    if finding.forged:
        return _zero(f"the outcome is forged: {finding.forged}")
    if not finding.untrusted:
        return score
    first, *others = finding.untrusted
    more = f" (and {len(others)} more)" if others else ""
    detail = f"{NOT_TRUSTED}: all tests passed, and no twin could be made of {first}{more}"
    if untrusted == "drop":
        raise GradingError(f"{detail}; such gradings are dropped by the setting untrusted = 'drop'")
    parts = {**score.breakdown, "trusted": 0.0}
    if untrusted == "accept":
        return Score(value=score.value, passed=score.passed, breakdown=parts, detail=detail)
    return Score(value=0.0, passed=False, breakdown={**parts, "resolved": 0.0}, detail=detail)


def _zero(detail: str) -> Score:
    parts = {"fail_to_pass": 0.0, "pass_to_pass": 0.0, "resolved": 0.0}
    return Score(value=0.0, passed=False, breakdown=parts, detail=detail)
