"""Calls recorded while a library's tests run. The recorder runs here without a sandbox, on a tree of this test's."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from verigym.envs.trace.context import SourceTree
from verigym.envs.trace.examples import Sieve, Wanted
from verigym.envs.trace.guest import LIBRARY_PROGRAM, prelude
from verigym.envs.trace.library import examples_of

LIBRARY = '''"""A library."""
import functools, time


def noted(function):
    @functools.wraps(function)
    def inner(*values):
        return function(*values)

    return inner


class Stack:
    size = 3

    def __init__(self):
        self.held = []

    @noted
    def push(self, value):
        self.held.append(twice(value))
        return self


def twice(n):
    m = n + n
    return m


def endless(n):
    for i in range(n):
        n = n + i
    return n


def many(n):
    for i in range(n):
        i += 1
    return n


def evens(n):
    for i in range(n):
        yield 2 * i


def both(n):
    return list(evens(n)), [twice(i) for i in range(n)]


def clock():
    now = time.perf_counter()
    return now


def fails(x):
    return 1 // x
'''
TESTS = """import pytest
from library import *


def test_stack():
    assert Stack().push(3).push(4).held == [6, 8]


def test_endless():
    assert endless(1000) > 0
    assert twice(70) == 140


def test_many():
    for n in (100, 101, 102, 1):
        many(n)


def test_both():
    assert both(2) == ([0, 2], [0, 2])


def test_clock():
    assert clock() > 0
    assert [twice(i) for i in range(100, 200)]


def test_fails():
    with pytest.raises(ZeroDivisionError):
        fails(0)


def test_broken():
    assert twice(1) == 3


def test_hangs():
    while True:
        pass
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    (root / "library.py").write_text(LIBRARY)
    (root / "test_library.py").write_text(TESTS)
    return root


def record(tree, **changes):
    job = {
        "files": ["library.py"],
        "collect": ["test_library.py"],
        "max_events": 60,
        "max_chars": 200,
        "max_items": 20,
        "max_depth": 5,
        "per_function": 10,
        "test_s": 1.0,
        "total_s": 60.0,
        "backend": "settrace",
        "untraced": False,
        **changes,
    }
    (tree / "job.json").write_text(json.dumps(job))
    program = tree / "record.py"
    program.write_text(prelude() + LIBRARY_PROGRAM)
    argv = [sys.executable, str(program), "job.json", "calls.jsonl"]
    done = subprocess.run(argv, cwd=tree, capture_output=True, text=True, timeout=120)
    rows = [json.loads(line) for line in (tree / "calls.jsonl").read_text().splitlines()]
    assert rows, done.stderr
    return rows[:-1], rows[-1]["end"]


@pytest.fixture(scope="module")
def recorded(tree):
    return record(tree)


def test_calls_are_recorded_and_tests_are_not_disturbed(tree, recorded):
    calls, end = recorded
    assert (end["num_tests"], end["num_failed"], end["errors"], end["flags"]) == (8, 2, [], [])
    _, plain = record(tree, untraced=True)
    assert {key: plain[key] for key in ("num_tests", "num_failed", "num_calls")} == {
        "num_tests": 8,
        "num_failed": 2,
        "num_calls": 0,
    }
    names = Counter(call["rows"][0][5][0].rpartition(".")[2] for call in calls)
    assert names["endless"] == 0  # longer than max_events
    assert names["many"] == 0  # left alone after three such calls, though the fourth is short
    assert names["evens"] == 0  # a generator begins no call
    assert names["twice"] == 10  # of 103, in the tests themselves
    assert names["both"] == names["clock"] == names["fails"] == 1
    by_test = {call["test"].rpartition("::")[2] for call in calls}
    assert by_test >= {"test_stack", "test_both", "test_clock", "test_fails", "test_endless"}


def test_a_call_becomes_traces(tree, recorded):
    calls, _ = recorded
    sources = SourceTree(tree)
    pushed = next(call["rows"] for call in calls if call["test"].endswith("test_stack") and len(call["rows"]) > 8)
    examples = list(examples_of(pushed, sources, origin="library==1"))
    outer, push, inner = examples
    assert [one.function.rpartition(".")[2] for one in examples] == ["inner", "push", "twice"]
    assert outer.origin.startswith("library==1 library.py:")
    assert outer.trace.context == (
        "# library.py\ndef noted(function):\n    @functools.wraps(function)\n"
        "    def inner(*values):  # << START_OF_TRACE\n        return function(*values)\n\n    return inner\n\n"
        "class Stack:\n    @noted\n    def push(self, value):\n        self.held.append(twice(value))\n"
        "        return self\n\ndef twice(n):\n    m = n + n\n    return m\n"
    )
    assert push.trace.frames[0].source == "    def push(self, value):\n"
    assert push.trace.frames[0].locals == {"self": "<Stack held=[]>", "value": "3"}
    assert "    def push(self, value):  # << START_OF_TRACE\n" in push.trace.context
    assert [frame.event for frame in inner.trace.frames] == ["call", "line", "line", "return"]
    assert inner.trace.frames[2].locals == {"n": "..", "m": "6"}
    (failing,) = [call["rows"] for call in calls if call["test"].endswith("test_fails")]
    (fails,) = examples_of(failing, sources, origin="")
    assert [(frame.event, frame.value) for frame in fails.trace.frames[-2:]] == [
        ("exception", "ZeroDivisionError('integer division or modulo by zero')"),
        ("return", None),
    ]


def test_two_runs_differ_in_the_clock_alone(tree, recorded):
    first = {(call["test"], call["number"]): call["rows"] for call in recorded[0]}
    second = {(call["test"], call["number"]): call["rows"] for call in record(tree)[0]}
    assert first.keys() == second.keys()
    assert {key[0].rpartition("::")[2] for key in first if first[key] != second[key]} == {"test_clock"}


def test_what_is_kept(tree, recorded):
    sieve = Sieve(wanted=Wanted(min_frames=4, max_frames=20, max_characters=5000))
    examples = [one for call in recorded[0] for one in examples_of(call["rows"], SourceTree(tree), origin="library==1")]
    kept = list(sieve.kept([*examples, *examples]))
    assert len({one.id for one in kept}) == len(kept) == sieve.counts["kept"]
    assert sieve.counts["recorded"] == 2 * len(examples)
    assert sieve.counts["too_long"] == 2 * sum(len(one.trace.frames) > 20 for one in examples) > 0
    assert sieve.counts["trivial"] == 2 * sum(len(one.trace.frames) < 4 for one in examples) > 0
    parts = ("kept", "duplicate", "trivial", "too_long", "not_ended")
    assert sum(sieve.counts[reason] for reason in parts) == sieve.counts["recorded"]
