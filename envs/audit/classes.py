"""The class of a row from its scores: the first rule that holds."""

from collections.abc import Mapping, Sequence

from .certificate import Basis, Finding

RULES: Mapping[str, Mapping[Basis, float]] = {
    "leaky": {"signs": 0.8, "measured": 0.5},
    "flaky": {"signs": 1.01, "measured": 0.01},
    "narrow": {"signs": 0.7, "measured": 0.01},
    "weak": {"signs": 1.01, "measured": 0.2},
    "underspecified": {"signs": 0.5},
}
"""A score from which on a row is of a class, in the order of the rules; 1.01 is never: signs alone do not convict.
"broken" comes before all of them, "unrelated" before "underspecified"; before "narrow" where it holds of all tests.
"underspecified" is of rows of which nothing ran: no measurement speaks of it, and of those that the text calls so a
third are not."""
WHOLLY = "FAIL_TO_PASS"
"""The ``where`` of a finding that holds of every deciding test."""


def classify(
    scores: Mapping[str, float], basis: Mapping[str, Basis], findings: Sequence[Finding], *, ran: bool
) -> tuple[str, str]:
    """A row's class and the rule that gave it.

    Args:
        ran: whether variants ran in a sandbox.
    """
    broken = next((one for one in findings if one.kind == "broken"), None)
    if broken is not None:
        return "broken", broken.what
    unrelated = [one for one in findings if one.kind == "unrelated"]
    wholly = next((one for one in unrelated if one.where == WHOLLY), None)
    for kind, limits in RULES.items():
        if kind == "underspecified" and ran:
            break
        if kind == "narrow" and wholly is not None and ran:
            return "unrelated", wholly.what
        limit = limits[basis[kind]]
        if scores[kind] >= limit:
            return kind, f"{kind} is {scores[kind]:.2f} by {basis[kind]}, at or above {limit:g}"
    if ran:
        return ("unrelated", unrelated[0].what) if unrelated else ("sound", "no rule holds")
    return "unflagged", "no rule holds for the text; nothing was run"
