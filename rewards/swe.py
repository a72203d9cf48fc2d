"""Verdicts of test runs: what the hidden tests said, and what that is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .score import Score

PASSING = frozenset({"passed", "xfailed"})
"""Statuses that count as passed, as in SWE-bench: an expected failure that fails is as it should be."""

FAILING = frozenset({"failed", "error"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TestReport:
    """Evidence from one run of tests.

    Attributes:
        statuses: test id -> "passed", "failed", "error", "skipped" or "xfailed"; a file that could not be collected
            stands under its own name as "error". A test that did not run is absent.
        complete: the session ran to its own end and every collected test has a status.
        exit_code: 0 where nothing failed, 1 where something did, other codes as pytest's; None where it was killed.
        canaries_ok: tests planted by the runner had the outcome they must have.
        detail: one line for people: why it is incomplete, or the first failure.
        duration_s: wall-clock seconds of the process.
        strange: tests whose code stands in no test file that was read before the repository could run, doctests apart.
        tracebacks: test id -> what its failure looked like, of bounded length; of some that failed. The code under test
            has a hand in it: it is shown, and decides nothing.
    """

    __test__ = False  # not a test class, whatever its name

    statuses: Mapping[str, str]
    complete: bool
    exit_code: int | None
    canaries_ok: bool = True
    detail: str = ""
    duration_s: float = 0.0
    strange: tuple[str, ...] = ()
    tracebacks: Mapping[str, str] = field(default_factory=dict)


def grade_tests(report: TestReport, fail_to_pass: Sequence[str], pass_to_pass: Sequence[str]) -> Score:
    """Score a run: 1 if every named test passed in a run that can be believed, else 0.

    A test that is absent has failed. An incomplete run, a wrong canary, and an exit code that contradicts the
    statuses make everything fail.

    Returns:
        Score with breakdown ``fail_to_pass`` and ``pass_to_pass`` (fraction of the named tests that passed; 1 for an
        empty list) and ``resolved``.
    Raises:
        ValueError: no test is named at all: nothing could be checked.
    """
    if not fail_to_pass and not pass_to_pass:
        raise ValueError("neither FAIL_TO_PASS nor PASS_TO_PASS names a test; there is nothing to grade")
    doubt = _doubt(report)
    if doubt:
        parts = {"fail_to_pass": 0.0, "pass_to_pass": 0.0, "resolved": 0.0}
        return Score(value=0.0, passed=False, breakdown=parts, detail=doubt)
    missed = [test for test in (*fail_to_pass, *pass_to_pass) if report.statuses.get(test) not in PASSING]
    parts = {
        "fail_to_pass": _fraction(report.statuses, fail_to_pass),
        "pass_to_pass": _fraction(report.statuses, pass_to_pass),
        "resolved": float(not missed),
    }
    if not missed:
        return Score(value=1.0, passed=True, breakdown=parts, detail="all tests passed")
    status = report.statuses.get(missed[0], "not run")
    more = f" (and {len(missed) - 1} more)" if len(missed) > 1 else ""
    return Score(value=0.0, passed=False, breakdown=parts, detail=f"{missed[0]}: {status}{more}")


def tests_status(
    report: TestReport, fail_to_pass: Sequence[str], pass_to_pass: Sequence[str]
) -> dict[str, dict[str, list[str]]]:
    """The named tests as SWE-bench's reports sort them: list -> "success" and "failure" -> ids."""
    return {
        name: {
            "success": [test for test in tests if report.statuses.get(test) in PASSING],
            "failure": [test for test in tests if report.statuses.get(test) not in PASSING],
        }
        for name, tests in (("FAIL_TO_PASS", fail_to_pass), ("PASS_TO_PASS", pass_to_pass))
    }


def _doubt(report: TestReport) -> str:
    """Why the whole run counts for nothing; "" where it counts."""
    if not report.complete:
        return f"the test run did not finish: {report.detail or 'no reason given'}"
    if not report.canaries_ok:
        return f"the test run cannot be trusted: {report.detail or 'a planted test had the wrong outcome'}"
    failed = any(status in FAILING for status in report.statuses.values())
    if report.exit_code != int(failed):
        return f"exit code {report.exit_code} contradicts the tests' statuses"
    return ""


def _fraction(statuses: Mapping[str, str], tests: Sequence[str]) -> float:
    if not tests:
        return 1.0
    return sum(statuses.get(test) in PASSING for test in tests) / len(tests)


def found_ids(statuses: Mapping[str, str], tests: Sequence[str]) -> tuple[str, ...]:
    """The ids of a run that a row's ids mean.

    An id that a benchmark cut at a blank ("t.py::test_x[deg") means all that begin with it, where they agree on
    whether they passed; that is swebench's rule (``harness/grading.py``, ``_resolve_case``). Others mean themselves.
    """
    found: list[str] = []
    for test in tests:
        known = [] if test in statuses or test.count("[") <= test.count("]") else _begun(statuses, test)
        found += known or [test]
    return tuple(dict.fromkeys(found))


def _begun(statuses: Mapping[str, str], test: str) -> list[str]:
    known = [name for name in statuses if name.startswith(test)]
    return known if len({statuses[name] in PASSING for name in known}) == 1 else []
