"""What a runner's last words count must be named by a line; so lines that are missing from a log make nothing better.

The code under test could write to the log, so every pattern here takes linear time, and no number is longer than a
runner would print.
"""

import re

from .parsers import (
    R2E_PARSER,
    SMITH_PARSER,
    SMITH_SUMMARY_PARSER,
    SMITH_UNITTEST_PARSER,
    SMITH_WORKERS_PARSER,
)

PYTEST_END = re.compile(r"=* ?(?:\d{1,9} [a-z]+(?:, )?)+ in [\d.]+ ?s(?:econds)?\b")
PYTEST_LINE = re.compile(r"(?:PASSED|FAILED|ERROR|SKIPPED|XFAIL) \S")
PROGRESS = re.compile(r"\s*\[ *\d{1,3}%\]$")
DJANGO_END = re.compile(r"^Ran (\d{1,9}) tests? in [\d.]+s$", re.M)
DJANGO_FAILED = re.compile(r"^FAILED \((.*)\)$", re.M)
DJANGO_HEADING = re.compile(r"(?:FAIL|ERROR): (.*\S)")
DJANGO_OUTCOMES = tuple(f" ...{gap}{word}" for word in ("FAIL", "ERROR", "ok", "OK") for gap in ("  ", " "))
SYMPY_END = re.compile(r"^=* tests finished: .*$", re.M)
SYMPY_FAILED = re.compile(r"^[ \t]*test_.* [EF]$", re.M)
COUNT = re.compile(r"\b(\d{1,9}) (failed|errors?|exceptions?)\b")
DJANGO_COUNT = re.compile(r"(failures|errors)=(\d{1,9})\b")

PYTEST_PARSERS = frozenset(
    f"parse_log_{name}"
    for name in (
        *("pytest", "pytest_options", "pytest_v2", "seaborn", "matplotlib", "astroid", "flask", "marshmallow", "pvlib"),
        *("pyvista", "sqlfluff", "xarray", "pydicom", "requests", "pylint", "astropy", "scikit", "sphinx"),
    )
) | {R2E_PARSER, SMITH_PARSER, SMITH_WORKERS_PARSER, SMITH_SUMMARY_PARSER}
UNITTEST_PARSERS = frozenset({"parse_log_django", SMITH_UNITTEST_PARSER})


def unaccounted(run: str, parser: str, exit_code: int | None) -> str:
    """What the runner's last words count and no line names; "" where all is accounted for.

    Args:
        run: what stands between the markers, without colours.
    """
    if parser in UNITTEST_PARSERS:
        return _unaccounted_django(run)
    if parser == "parse_log_sympy":
        return _unaccounted_sympy(run)
    if parser in PYTEST_PARSERS:
        return _unaccounted_pytest(run, exit_code)
    return ""


def django_outcomes(run: str) -> tuple[set[str], list[str]]:
    """(tests that a line calls passed, tests that a line or a heading calls failed)."""
    good: set[str] = set()
    bad: list[str] = []
    headings: list[str] = []
    for line in run.split("\n"):
        if (match := DJANGO_HEADING.match(line)) is not None:
            headings.append(match[1])
        text = line.strip()
        end = next((end for end in DJANGO_OUTCOMES if text.endswith(end)), None)
        if end is not None:
            test = text.removesuffix(end)
            (good.add if end.endswith(("ok", "OK")) else bad.append)(test)
    return good, [*(test for test in bad if test not in good), *headings]


def _unaccounted_django(run: str) -> str:
    lines = run.splitlines()
    if DJANGO_END.search(run) is None:
        return "the runner's last line (Ran N tests) is missing"
    verdicts = [line for line in lines if line == "OK" or line.startswith(("OK (", "FAILED ("))]
    if not verdicts:
        return "the runner's verdict (OK or FAILED) is missing"
    named = {word: sum(line.startswith(word) for line in lines) for word in ("FAIL: ", "ERROR: ")}
    for words in DJANGO_FAILED.findall(run):
        for kind, count in DJANGO_COUNT.findall(words):
            if named["FAIL: " if kind == "failures" else "ERROR: "] < int(count):
                return f"{count} {kind}, and not all of them are named"
    return ""


def _unaccounted_sympy(run: str) -> str:
    ends = SYMPY_END.findall(run)
    if not ends:
        return "the runner's last line is missing"
    total = sum(int(count) for count, _ in COUNT.findall(ends[-1]))
    named = max(len(SYMPY_FAILED.findall(run)), sum(_is_sympy_heading(line) for line in run.split("\n")))
    return f"{total} failures, and not all of them are named" if named < total else ""


def _is_sympy_heading(line: str) -> bool:
    """Whether it is "____ sympy/core/tests/test_a.py:test_b ____"."""
    inside = line.strip("_")
    return line.startswith("_") and line.endswith("_") and inside[:1] == inside[-1:] == " " and ".py:" in inside


def _unaccounted_pytest(run: str, exit_code: int | None) -> str:
    lines = [PROGRESS.sub("", line.rstrip()) if line.rstrip().endswith("%]") else line for line in run.splitlines()]
    lines = [line.rstrip() for line in lines]
    last = next((n for n in range(len(lines) - 1, -1, -1) if PYTEST_END.match(lines[n])), None)
    # A test's captured output may hold the last line of another pytest; the run's own follows all its statuses.
    if last is None or any(PYTEST_LINE.match(line) for line in lines[last:]):
        return "the runner's last line is missing"
    totals = {"failed": 0, "error": 0}
    for count, kind in COUNT.findall(lines[last]):
        totals["failed" if kind == "failed" else "error"] += int(count)
    for kind, word in (("failed", "FAILED"), ("error", "ERROR")):
        before = sum(line.startswith(f"{word} ") for line in lines)
        after = sum(line.endswith(f" {word}") for line in lines)  # as pytest before 4 lists them, and -v
        if max(before, after) < totals[kind]:
            return f"{totals[kind]} {kind}, and not all of them are named"
    if exit_code == 0 and any(totals.values()):
        return f"exit code 0 contradicts {lines[last].strip('= ')!r}"
    return ""
