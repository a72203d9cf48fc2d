"""Parsers of logs that swebench has none for: R2E-Gym's, and those of SWE-smith's profiles for Python.

Sources: github.com/R2E-Gym/R2E-Gym, ``repo_analysis/execution_log_parser.py``; ``swesmith`` 0.0.9 on PyPI,
``profiles/python.py``. Each takes a log and a spec that it does not look at, as swebench's do, and reads a line at a
time with patterns that take linear time.
"""

import re
from collections.abc import Callable
from typing import Any

Parser = Callable[[str, Any], dict[str, str]]

ANSI = re.compile(r"\x1b\[[0-9;]*m")
R2E_PARSER = "parse_log_r2e"
"""pytest's summary; tests are named by what stands after the file."""
SMITH_PARSER = "parse_log_smith"
"""``pytest --verbose``: the test, its status, and mostly how far the run is ("t.py::test_a PASSED [ 75%]")."""
SMITH_WORKERS_PARSER = "parse_log_smith_workers"
"""The same under pytest-xdist, which names the worker first."""
SMITH_SUMMARY_PARSER = "parse_log_smith_summary"
"""``pytest -rA``."""
SMITH_UNITTEST_PARSER = "parse_log_smith_unittest"
"""unittest's verbose lines ("test_a (m.T) ... ok")."""

STATUSES = ("FAILED", "PASSED", "SKIPPED", "ERROR", "XFAIL")
_WORD = "|".join(STATUSES)
_R2E = re.compile(r"^(PASSED|FAILED|ERROR) [^:\n]*::(.*?)(?: - .*)?$", re.M)
_AFTER = re.compile(rf"^(\S+)\s+({_WORD})")
_OF_WORKER = re.compile(rf"^\[gw\d{{1,4}}\](?: \[ *\d{{1,3}}%\])? ({_WORD}) (\S+)")
_BEFORE = re.compile(rf"^({_WORD})\s(\S+)")


def _r2e(log: str, _spec: Any) -> dict[str, str]:
    summary = ANSI.sub("", log).rpartition("short test summary info")[2]
    return {name.replace("::", "."): status for status, name in _R2E.findall(summary)}


def _smith(log: str, _spec: Any) -> dict[str, str]:
    # A summary's "FAILED t.py::test_a" is no test named FAILED.
    found = (_AFTER.match(line) for line in log.split("\n") if not line.startswith(STATUSES))
    return {match[1]: match[2] for match in found if match}


def _smith_workers(log: str, _spec: Any) -> dict[str, str]:
    found = (_OF_WORKER.match(line) for line in log.split("\n"))
    return {match[2]: match[1] for match in found if match}


def _smith_summary(log: str, _spec: Any) -> dict[str, str]:
    found = (_BEFORE.match(line) for line in log.split("\n"))
    return {match[2]: match[1] for match in found if match}


def _smith_unittest(log: str, _spec: Any) -> dict[str, str]:
    statuses: dict[str, str] = {}
    for line in log.split("\n"):
        test, _, said = line.partition(" ... ")
        if said in ("ok", "FAIL", "ERROR"):
            statuses[test] = {"ok": "PASSED", "FAIL": "FAILED", "ERROR": "ERROR"}[said]
        elif said.startswith("skipped "):
            statuses[test] = "SKIPPED"
        elif line.startswith(("ERROR:", "FAIL:")):
            statuses[" ".join(line.split()[1:3])] = "FAILED"
    return statuses


PARSERS: dict[str, Parser] = {
    R2E_PARSER: _r2e,
    SMITH_PARSER: _smith,
    SMITH_WORKERS_PARSER: _smith_workers,
    SMITH_SUMMARY_PARSER: _smith_summary,
    SMITH_UNITTEST_PARSER: _smith_unittest,
}
