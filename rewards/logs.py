"""Verdicts of SWE-bench evaluation logs: swebench's own parsers, and doubts of our own.

A log is text that the code under test could write to. What can be checked is checked: one pair of markers around the
run, the exit code, the runner's last words, and that every failure they count is named by a line. So lines that are
missing from a log never make its verdict better.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from .score import Score
from .swe import FAILING, TestReport

ANSI = re.compile(r"\x1b\[[0-9;]*m")
PYTEST_END = re.compile(r"^=* ?(?=.*\b\d+ \w+)(?:\d+ [a-z]+(?:, )?)+ in [\d.]+ ?s(?:econds)?\b", re.M)
PYTEST_LINE = re.compile(r"^(?:PASSED|FAILED|ERROR|SKIPPED|XFAIL) \S")
DJANGO_END = re.compile(r"^Ran (\d+) tests? in [\d.]+s$", re.M)
DJANGO_FAILED = re.compile(r"^FAILED \((.*)\)$", re.M)
DJANGO_HEADING = re.compile(r"^(?:FAIL|ERROR): (.*\S)\s*$", re.M)
DJANGO_OUTCOME = re.compile(r"^\s*(.*) \.\.\.  ?(FAIL|ERROR|ok|OK)\s*$", re.M)
SYMPY_END = re.compile(r"^=* tests finished: .*$", re.M)
SYMPY_FAILED = re.compile(r"^\s*test_.* [EF]$", re.M)
SYMPY_HEADING = re.compile(r"^_+ .*\.py:.* _+$", re.M)
R2E_PARSER = "parse_log_r2e"
"""R2E-Gym's own parser: pytest's summary, tests named by what stands after the file."""
COUNT = re.compile(r"(\d+) (failed|errors?|exceptions?)\b")
DJANGO_COUNT = re.compile(r"(failures|errors)=(\d+)")


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


def read_log(text: str, parser: str) -> TestReport:
    """Statuses of a log.

    Args:
        text: the whole ``test_output.txt``; any line ends.
        parser: a key of swebench's PARSER_REGISTRY, as in a row's ``log_parser``.
    Returns:
        The report; not complete where the run broke off, or the log does not account for every failure. A test that
        any line calls failed has failed. ``exit_code`` is the recorded one; None where an older log has none.
    Raises:
        ValueError: an unknown parser.
    """
    from swebench.harness import constants
    from swebench.harness.log_parsers import PARSER_REGISTRY

    parse = _parse_r2e if parser == R2E_PARSER else PARSER_REGISTRY.get(parser)
    if parse is None:
        raise ValueError(f"unknown log parser {parser!r}; swebench has {', '.join(sorted(PARSER_REGISTRY))}")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    exit_code = _exit_code(text, constants.TEST_EXIT_CODE, constants.TEST_EXIT_CODE_VAR)
    bad = (constants.APPLY_PATCH_FAIL, constants.RESET_FAILED, constants.TESTS_ERROR, constants.TESTS_TIMEOUT)
    marks = (constants.START_TEST_OUTPUT, constants.END_TEST_OUTPUT)
    problem = next((mark for mark in bad if mark in text), "") or _wrong_marks(text, *marks)
    if problem:
        return TestReport(statuses={}, complete=False, exit_code=exit_code, detail=problem)
    run = text.split(marks[0])[1].split(marks[1])[0]
    statuses = _statuses(run, parser, parse)
    problem = _unaccounted(ANSI.sub("", run), parser, exit_code)
    if not problem and exit_code not in (None, 0) and not FAILING & set(statuses.values()):
        problem = f"exit code {exit_code}, and no test is named as failed"
    return TestReport(statuses=statuses, complete=not problem, exit_code=exit_code, detail=problem)


def judge_log(
    text: str,
    *,
    parser: str,
    fail_to_pass: Sequence[str],
    pass_to_pass: Sequence[str],
    eval_type: str = "pass_and_fail",
) -> LogVerdict:
    """SWE-bench's verdict of a log. Absent is failed; only a skipped PASS_TO_PASS test is maintained.

    Ids that the benchmark cut at a blank ("test_x[a") match as swebench matches them.

    Args:
        text, parser: as for ``read_log``.
        eval_type: a row's; "fail_only" counts every test that no line calls failed as passed, which swebench needs
            for runners that print failures alone.
    Raises:
        ValueError: an unknown parser or eval_type, or no test is named.
    """
    from swebench.harness.constants import EvalType
    from swebench.harness.grading import get_eval_tests_report

    if not fail_to_pass and not pass_to_pass:
        raise ValueError("neither FAIL_TO_PASS nor PASS_TO_PASS names a test; there is nothing to grade")
    report = read_log(text, parser)
    upper = {test: _WORDS[status] for test, status in report.statuses.items()}
    gold: Any = {"FAIL_TO_PASS": list(fail_to_pass), "PASS_TO_PASS": list(pass_to_pass)}
    if upper or eval_type == "pass_and_fail":
        found = get_eval_tests_report(upper, gold, eval_type=EvalType(eval_type))
        tests = {name: found[name] for name in gold}
    else:
        tests = {name: {"success": [], "failure": listed} for name, listed in gold.items()}
    missed = [test for name, listed in gold.items() for test in listed if test not in tests[name]["success"]]
    resolved = report.complete and not missed
    parts = {
        "fail_to_pass": _share(tests["FAIL_TO_PASS"]["success"], fail_to_pass),
        "pass_to_pass": _share(tests["PASS_TO_PASS"]["success"], pass_to_pass),
        "resolved": float(resolved),
    }
    detail = report.detail or (f"{missed[0]} did not pass" if missed else "all tests passed")
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


def _statuses(run: str, parser: str, parse: Any) -> dict[str, str]:
    """Test -> status; what any line of its own calls failed stays failed."""
    spec: Any = SimpleNamespace()  # a TestSpec, which Python's parsers never look at
    statuses = {test: _word(status) for test, status in parse(run, spec).items()}
    if parser == "parse_log_django":
        outcomes = DJANGO_OUTCOME.findall(run)
        good = {test for test, word in outcomes if word in ("ok", "OK")}
        bad = [test for test, word in outcomes if word in ("FAIL", "ERROR") and test not in good]
        return statuses | dict.fromkeys([*bad, *DJANGO_HEADING.findall(run)], "failed")
    if parser == "parse_log_sympy":
        return statuses
    failures = "\n".join(line for line in run.splitlines() if ANSI.sub("", line).startswith(("FAILED", "ERROR")))
    return statuses | {test: _word(status) for test, status in parse(failures, spec).items()}


def _exit_code(text: str, mark: str, variable: str) -> int | None:
    """The test command's exit code: the worst that the mark and the shell's trace of the variable say."""
    codes = re.findall(rf"(?:{re.escape(mark)}:\s*|^\++ {re.escape(variable)}=)(-?\d+)", text, re.M)
    return max((int(code) for code in codes), key=abs, default=None)


def _unaccounted(run: str, parser: str, exit_code: int | None) -> str:
    """What the runner's last words count and no line names; "" where all is accounted for."""
    if parser == "parse_log_django":
        return _unaccounted_django(run)
    if parser == "parse_log_sympy":
        return _unaccounted_sympy(run)
    if parser in _PYTEST_PARSERS:
        return _unaccounted_pytest(run, exit_code)
    return ""


def _parse_r2e(log: str, _spec: Any) -> dict[str, str]:
    """Source: github.com/R2E-Gym/R2E-Gym, src/r2egym/repo_analysis/execution_log_parser.py."""
    summary = ANSI.sub("", log).rpartition("short test summary info")[2]
    found = re.findall(r"^(PASSED|FAILED|ERROR) [^:\n]*::(.*?)(?: - .*)?$", summary, re.M)
    return {name.replace("::", "."): status for status, name in found}


_PYTEST_PARSERS = frozenset(
    f"parse_log_{name}"
    for name in (
        *("pytest", "pytest_options", "pytest_v2", "seaborn", "matplotlib", "astroid", "flask", "marshmallow", "pvlib"),
        *("pyvista", "sqlfluff", "xarray", "pydicom", "requests", "pylint", "astropy", "scikit", "sphinx", "r2e"),
    )
)


def _unaccounted_django(run: str) -> str:
    lines = run.splitlines()
    if DJANGO_END.search(run) is None:
        return "the runner's last line (Ran N tests) is missing"
    verdicts = [line for line in lines if line == "OK" or line.startswith(("OK (", "FAILED ("))]
    if not verdicts:
        return "the runner's verdict (OK or FAILED) is missing"
    for words in DJANGO_FAILED.findall(run):
        for kind, count in DJANGO_COUNT.findall(words):
            heading = "FAIL: " if kind == "failures" else "ERROR: "
            if sum(line.startswith(heading) for line in lines) < int(count):
                return f"{count} {kind}, and not all of them are named"
    return ""


def _unaccounted_sympy(run: str) -> str:
    ends = SYMPY_END.findall(run)
    if not ends:
        return "the runner's last line is missing"
    total = sum(int(count) for count, _ in COUNT.findall(ends[-1]))
    named = max(len(SYMPY_FAILED.findall(run)), len(SYMPY_HEADING.findall(run)))
    return f"{total} failures, and not all of them are named" if named < total else ""


def _unaccounted_pytest(run: str, exit_code: int | None) -> str:
    lines = [line.rstrip() for line in run.splitlines()]
    last = next((n for n in range(len(lines) - 1, -1, -1) if PYTEST_END.match(lines[n])), None)
    # A test's captured output may hold the last line of another pytest; the run's own follows all its statuses.
    if last is None or any(PYTEST_LINE.match(line) for line in lines[last:]):
        return "the runner's last line is missing"
    totals = {"failed": 0, "error": 0}
    for count, kind in COUNT.findall(lines[last]):
        totals["failed" if kind == "failed" else "error"] += int(count)
    for kind, word in (("failed", "FAILED"), ("error", "ERROR")):
        before = sum(line.startswith(f"{word} ") for line in lines)
        after = sum(line.endswith(f" {word}") for line in lines)  # as pytest before 4 lists them
        if max(before, after) < totals[kind]:
            return f"{totals[kind]} {kind}, and not all of them are named"
    if exit_code == 0 and any(totals.values()):
        return f"exit code 0 contradicts {lines[last].strip('= ')!r}"
    return ""
