"""Verdicts of SWE-bench evaluation logs: swebench's own parsers, and doubts of our own.

A log is text that the code under test could write to. What can be checked is checked: one pair of markers around the
run, the exit code, the runner's last words, and that every failure they count is named by a line. So lines that are
missing from a log never make its verdict better.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from ..score import Score
from ..swe import FAILING, PASSING, TestReport
from .accounts import django_outcomes, unaccounted
from .parsers import ANSI, PARSERS, SMITH_PARSER

WHOLE = "the marked part holds no status, so the whole log was read, as swebench does"
FIRST_VERSION = re.compile(r"^>>>>> (?:Applied Patch|Init |All Tests Passed|Some Tests Failed)|^Task Metadata:", re.M)
"""What swebench 1.x writes into its logs, which have no markers around the run."""


class UngradableLog(ValueError):
    """A stored log that does not say where its run is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogVerdict:
    """What a log says of one instance.

    Attributes:
        score: 1 where all named tests passed in a run that can be believed.
        tests: "FAIL_TO_PASS" and "PASS_TO_PASS" -> "success" and "failure" -> test ids in the row's order, as in
            swebench's report. The lines alone decide here; a run that is not believed has its doubt in ``score``.
        report: the evidence.
    """

    score: Score
    tests: Mapping[str, Mapping[str, Sequence[str]]]
    report: TestReport


def read_log(text: str, parser: str, *, stored: bool = False, strict: bool = False) -> TestReport:
    """Statuses of a log.

    Args:
        text: the whole ``test_output.txt``; any line ends.
        parser: a key of swebench's PARSER_REGISTRY or of ``log_parsers.PARSERS``, as in a row's ``log_parser``.
        stored: read it as the harness that wrote it did: where the marked part holds no status (standard output was
            written before standard error, which has the markers), the whole log counts. Never for a run of our own.
        strict: of a stored log too only what is marked counts.
    Returns:
        The report; not complete where the run broke off, or the log does not account for every failure. A test that
        any line calls failed has failed. ``exit_code`` is the recorded one; None where an older log has none.
    Raises:
        ValueError: an unknown parser. UngradableLog: a stored log of swebench 1.x, or another without markers.
    """
    from swebench.harness import constants
    from swebench.harness.log_parsers import PARSER_REGISTRY

    parse = PARSERS.get(parser) or PARSER_REGISTRY.get(parser)
    if parse is None:
        raise ValueError(f"unknown log parser {parser!r}; swebench has {', '.join(sorted(PARSER_REGISTRY))}")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    exit_code = _exit_code(text, constants.TEST_EXIT_CODE, constants.TEST_EXIT_CODE_VAR)
    bad = (constants.APPLY_PATCH_FAIL, constants.RESET_FAILED, constants.TESTS_ERROR, constants.TESTS_TIMEOUT)
    marks = (constants.START_TEST_OUTPUT, constants.END_TEST_OUTPUT)
    if stored and not any(mark in text for mark in marks):
        _refuse_unmarked(text, parser, parse)
    problem = next((mark for mark in bad if mark in text), "") or _wrong_marks(text, *marks)
    if problem:
        return TestReport(statuses={}, complete=False, exit_code=exit_code, detail=problem)
    run = text.split(marks[0])[1].split(marks[1])[0]
    statuses = _statuses(run, parser, parse)
    note = problem = ""
    if stored and not strict and not statuses and (statuses := _parsed(text, parse)):
        note = WHOLE
    else:
        problem = unaccounted(ANSI.sub("", run), parser, exit_code)
    if not problem and exit_code not in (None, 0) and not FAILING & set(statuses.values()):
        problem = f"exit code {exit_code}, and no test is named as failed"
    return TestReport(statuses=statuses, complete=not problem, exit_code=exit_code, detail=problem or note)


def _refuse_unmarked(text: str, parser: str, parse: Any) -> None:
    if FIRST_VERSION.search(text):
        raise UngradableLog("a log of swebench 1.x has no markers around the run; grade it with that version")
    if _statuses(text, parser, parse):
        raise UngradableLog("no marker says where the run is in this log; it is none that swebench 2 or later wrote")


def judge_log(
    text: str,
    *,
    parser: str,
    fail_to_pass: Sequence[str],
    pass_to_pass: Sequence[str],
    eval_type: str = "pass_and_fail",
    stored: bool = False,
    strict: bool = False,
) -> LogVerdict:
    """SWE-bench's verdict of a log. Absent is failed; only a skipped PASS_TO_PASS test is maintained.

    Ids that the benchmark cut at a blank ("test_x[a") match as swebench matches them.

    Args:
        text, parser, stored, strict: as for ``read_log``.
        eval_type: a row's; "fail_only" counts every test that no line calls failed as passed, which swebench needs
            for runners that print failures alone.
    Raises:
        ValueError: an unknown parser or eval_type, or no test is named. UngradableLog: as ``read_log``.
    """
    from swebench.harness.constants import EvalType
    from swebench.harness.grading import get_eval_tests_report

    if not fail_to_pass and not pass_to_pass:
        raise ValueError("neither FAIL_TO_PASS nor PASS_TO_PASS names a test; there is nothing to grade")
    report = read_log(text, parser, stored=stored, strict=strict)
    whole = {**report.statuses, **_of_cut_ids(report.statuses, (*fail_to_pass, *pass_to_pass))}
    upper = {test: _WORDS[status] for test, status in whole.items()}
    gold: Any = {"FAIL_TO_PASS": list(fail_to_pass), "PASS_TO_PASS": list(pass_to_pass)}
    if upper or eval_type == "pass_and_fail":
        found = get_eval_tests_report(upper, gold, eval_type=EvalType(eval_type))
        tests = {name: found[name] for name in gold}
    else:
        tests = {name: {"success": [], "failure": listed} for name, listed in gold.items()}
    good = {name: set(found["success"]) for name, found in tests.items()}
    missed = [test for name, listed in gold.items() for test in listed if test not in good[name]]
    resolved = report.complete and not missed
    parts = {
        "fail_to_pass": _share(tests["FAIL_TO_PASS"]["success"], fail_to_pass),
        "pass_to_pass": _share(tests["PASS_TO_PASS"]["success"], pass_to_pass),
        "resolved": float(resolved),
    }
    outcome = f"{missed[0]} did not pass" if missed else "all tests passed"
    detail = f"{outcome} ({WHOLE})" if report.detail == WHOLE else report.detail or outcome
    return LogVerdict(
        score=Score(value=float(resolved), passed=resolved, breakdown=parts, detail=detail), tests=tests, report=report
    )


def grade_log(text: str, *, parser: str, fail_to_pass: Sequence[str], pass_to_pass: Sequence[str]) -> Score:
    """The score of ``judge_log``."""
    return judge_log(text, parser=parser, fail_to_pass=fail_to_pass, pass_to_pass=pass_to_pass).score


_WORDS = {"passed": "PASSED", "failed": "FAILED", "error": "ERROR", "skipped": "SKIPPED", "xfailed": "XFAIL"}


def _word(status: str) -> str:
    return next((ours for ours, theirs in _WORDS.items() if theirs == status), "error")


def _share(found: Sequence[str], listed: Sequence[str]) -> float:
    return len(found) / len(listed) if listed else 1.0


def _wrong_marks(text: str, start: str, end: str) -> str:
    """Why the markers do not say where the run is: a second one was printed by something else than the harness."""
    for mark in (start, end):
        count = text.count(mark)
        if count != 1:
            return f"{mark!r} is in the log {count} times" if count else f"no {mark!r} in the log"
    return "" if text.index(start) < text.index(end) else f"{end!r} comes before {start!r}"


def _of_cut_ids(statuses: Mapping[str, str], tests: Sequence[str]) -> dict[str, str]:
    """Statuses of ids that the benchmark cut at a blank ("test_x[a"), by swebench's rule: of the tests that begin so,
    where they agree on having passed, the first's; of others "error", which swebench would look for in all of them."""
    cut = [test for test in tests if test not in statuses and test.count("[") > test.count("]")]
    if not cut:
        return {}
    places = {test: n for n, test in enumerate(statuses)}
    ordered = sorted(statuses)
    found = {}
    for test in cut:
        begin = end = bisect_left(ordered, test)
        while end < len(ordered) and ordered[end].startswith(test):
            end += 1
        named = ordered[begin:end]
        agree = len({statuses[one] in PASSING for one in named}) == 1
        found[test] = statuses[min(named, key=places.__getitem__)] if agree else "error"
    return found


def _parsed(run: str, parse: Any) -> dict[str, str]:
    spec: Any = SimpleNamespace()  # a TestSpec, which Python's parsers never look at
    return {test: _word(status) for test, status in parse(run, spec).items()}


def _statuses(run: str, parser: str, parse: Any) -> dict[str, str]:
    """Test -> status; what any line of its own calls failed stays failed."""
    statuses = _parsed(run, parse)
    if parser == "parse_log_django":
        return statuses | dict.fromkeys(django_outcomes(run)[1], "failed")
    if parser == "parse_log_sympy":
        return statuses
    failures = "\n".join(line for line in run.splitlines() if ANSI.sub("", line).startswith(("FAILED", "ERROR")))
    if parser == SMITH_PARSER:
        failures = "\n".join(line for line in run.split("\n") if " FAILED" in line or " ERROR" in line)
    return statuses | {test: status for test, status in _parsed(failures, parse).items() if status in FAILING}


def _exit_code(text: str, mark: str, variable: str) -> int | None:
    """The test command's exit code: the worst that the mark and the shell's trace of the variable say."""
    codes = re.findall(rf"(?:{re.escape(mark)}:\s*|^\++ {re.escape(variable)}=)(-?\d{{1,9}})\b", text, re.M)
    return max((int(code) for code in codes), key=abs, default=None)
