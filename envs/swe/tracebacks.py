"""What tests that failed said, as text for a teacher. The code under test writes into it: it is bounded, and decides
nothing."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...rewards.swe import PASSING, TestReport
from ..tools.bounds import readable
from .testing_outcomes import MOST_TRACEBACKS, TRACEBACK_CHARS, shortened

MOST_TOLD, MOST_NAME = 12_000, 300
"""Characters of all tracebacks that are told of a run, and of the name of a test."""

# What heads a failure in the log of pytest and SymPy, and of unittest (Django's too, where a test may go by its
# docstring); what ends the last one.
_HEADS = (
    re.compile(r"^(?:_+|_{80}\n) (\S.*?) _*\n", re.MULTILINE),
    re.compile(r"^={70}\n(?:FAIL|ERROR): ([^\n]+)\n(?:([^\n-][^\n]*)\n)?-{70}\n", re.MULTILINE),
)
_END = re.compile(r"^(?:={3,} .+ ={3,}|={70}|_{80}|-{70}\nRan \d+ tests? .*)$", re.MULTILINE)
_SETUP = re.compile(r"^ERROR (?:at (?:setup|teardown) of|collecting) ")

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Another in each run, and of no use to anybody."""


def read_tracebacks(found: Any) -> dict[str, str]:
    """Test id -> traceback, of what a guest has sent; whatever is none is left out."""
    told = found if isinstance(found, Mapping) else {}
    texts = [(test, text) for test, text in told.items() if isinstance(text, str)]
    return {test: _ADDRESS.sub(" at 0x...", readable(text, TRACEBACK_CHARS)) for test, text in texts[:MOST_TRACEBACKS]}


def logged_tracebacks(log: str, failed: Sequence[str]) -> dict[str, str]:
    """Test id -> what the log of pytest, unittest or SymPy says of its failure; other logs do not tell tests apart.

    Args:
        failed: ids as SWE-bench's parsers read them. pytest heads a failure without the file: of several tests of one
            name each gets the next. SymPy's rows leave the file out.
    """
    by_name: dict[str, list[str]] = {}
    for test in failed:
        for name in {test, test.partition("::")[2].replace("::", ".") or test}:
            by_name.setdefault(name, []).append(test)
    told: dict[str, str] = {}
    for heads in _HEADS:
        for head in heads.finditer(log):
            names = [_SETUP.sub("", name) for name in head.groups() if name]
            named = (by_name.get(name, ()) for name in (*names, names[0].rpartition(":")[2]))
            found = [one for tests in named if (one := next((test for test in tests if test not in told), None))]
            if not found or len(told) >= MOST_TRACEBACKS:
                continue
            after = heads.search(log, head.end())
            last = after.start() if after else len(log)
            end = _END.search(log, head.end(), last)
            if text := log[head.end() : end.start() if end else last].strip("\n"):
                told |= dict.fromkeys(found, shortened(text))
    return read_tracebacks(told)


def feedback_of(report: TestReport, deciding: Sequence[str]) -> str:
    """The tracebacks of the tests that decide and failed, in their order; where one of them did not run, of what else
    failed too (a file that cannot be imported). "" where there is none."""
    failed = [test for test in deciding if report.statuses.get(test) not in PASSING]
    tests = [test for test in failed if test in report.tracebacks]
    if any(test not in report.statuses for test in failed):
        tests += [test for test in report.tracebacks if test not in tests]
    parts: list[str] = []
    left = MOST_TOLD
    for test in tests:
        name = f"{readable(test, MOST_NAME)}: {report.statuses.get(test, 'not run')}"
        part = f"{name}\n{report.tracebacks[test]}"
        left -= len(part)
        if left < 0:
            parts.append(f"[... {len(tests) - len(parts)} more left out ...]")
            break
        parts.append(part)
    return "\n\n".join(parts)
