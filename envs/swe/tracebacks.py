"""What tests that failed said, as text for a teacher. The code under test writes into it: it is bounded, and decides
nothing."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ...rewards.swe import PASSING, TestReport
from ..tools.bounds import readable
from .testing_outcomes import MOST_TRACEBACKS, TRACEBACK_CHARS

MOST_TOLD, MOST_NAME = 12_000, 300
"""Characters of all tracebacks that are told of a run, and of the name of a test."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""Another in each run, and of no use to anybody."""


def read_tracebacks(found: Any) -> dict[str, str]:
    """Test id -> traceback, of what a guest has sent; whatever is none is left out."""
    told = found if isinstance(found, Mapping) else {}
    texts = [(test, text) for test, text in told.items() if isinstance(text, str)]
    return {test: _ADDRESS.sub(" at 0x...", readable(text, TRACEBACK_CHARS)) for test, text in texts[:MOST_TRACEBACKS]}


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
