"""The audit that runs nothing: a row's text alone, in milliseconds."""

import ast
import time
from collections.abc import Mapping
from typing import Any

from ....errors import TaskError
from ....rewards.patches import paths_of
from ...datasets.swe import SWERow, parse_row
from ..certificate import MOST_FINDINGS, SCORES, Basis, Certificate, Finding, digest_of
from ..classes import classify
from .demands import Standing, demanded, fix_in_statement, instability, leans_on, unchecked, unrelated_tests
from .signs import narrow_share, read_signs, underspecified_share


def audit_text(raw: Mapping[str, Any], *, stands: Standing | None = None) -> Certificate:
    """Audit a row from its text.

    Args:
        raw: the row as it was read.
        stands: looks into the repository at base, for the evidence; scores do not depend on it.
    Returns:
        The certificate; scores that cannot be had (no statement, no reference, no tests) are 0 and ``problem`` says so.
    Raises:
        TaskError: it is no row at all.
    """
    began = time.process_time()
    row = parse_row(raw)
    problem = problem_of(row)
    signs = read_signs(row)
    told, lines = fix_in_statement(row)
    moves, unstable = instability(row)
    scores = {
        "weak": unchecked(row),
        "narrow": narrow_share(signs),
        "underspecified": underspecified_share(signs),
        "flaky": moves,
        "leaky": told,
    }
    for kind in _unknown(row):
        scores[kind] = 0.0
    findings = [Finding(kind="leaky", what="the statement holds a line of the reference", shown=one) for one in lines]
    findings += demanded(row, stands)
    findings += unrelated_tests(row)
    findings += [Finding(kind="flaky", what="the tests use what may differ", shown=one) for one in unstable]
    findings += leans_on(row)
    basis: dict[str, Basis] = dict.fromkeys(SCORES, "signs")
    kind, reason = classify(scores, basis, findings, ran=False)
    if problem:
        kind, reason = "broken", problem
    return Certificate(
        instance_id=row.instance_id,
        row_sha256=digest_of(raw),
        scores={name: round(value, 4) for name, value in scores.items()},
        basis=basis,
        kind=kind,
        reason=reason,
        findings=tuple(findings[:MOST_FINDINGS]),
        signs={name: round(value, 4) for name, value in signs.items()},
        problem=problem,
        processor_s=round(time.process_time() - began, 6),
    )


def problem_of(row: SWERow) -> str:
    """What a row lacks, in words with the remedy; "" where it has all that an audit needs."""
    if not row.problem_statement.strip():
        return "the row has no problem_statement; give one, an agent is told nothing else"
    if not row.patch.strip():
        return "the row has no reference patch ('patch'); nothing can be said of its tests without one"
    if not row.FAIL_TO_PASS:
        return "FAIL_TO_PASS is empty; no test tells a solution from none"
    for name, patch in (("patch", row.patch), ("test_patch", row.test_patch)):
        if patch.strip() and not paths_of(patch):
            return f"{name!r} is no unified diff ({patch.strip()[:40]!r}); it says of no file what changes"
    return ""


def _unknown(row: SWERow) -> set[str]:
    """Scores of which a row's text says nothing."""
    unknown: set[str] = set()
    if not row.problem_statement.strip():
        unknown |= {"narrow", "underspecified", "leaky"}
    if not row.patch.strip():
        unknown |= {"narrow", "weak", "leaky"}
    if not row.test_patch.strip():
        unknown |= {"weak", "flaky"}
    return unknown


def unparsed_tests(files: Mapping[str, str | None]) -> list[str]:
    """Test files that are no valid Python: nothing of them can be varied or traced."""
    bad = []
    for path, text in files.items():
        try:
            ast.parse(text or "")
        except (SyntaxError, ValueError):
            bad.append(path)
    return bad


def refused(raw: Mapping[str, Any], error: TaskError) -> Certificate:
    """The certificate of what is no row: of no use as a task."""
    return Certificate(
        instance_id=str(raw.get("instance_id", "?")),
        row_sha256=digest_of(raw),
        scores=dict.fromkeys(SCORES, 0.0),
        basis=dict.fromkeys(SCORES, "signs"),
        kind="broken",
        reason=str(error),
        problem=str(error),
    )
