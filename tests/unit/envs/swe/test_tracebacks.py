"""What failing tests said, for a teacher: file, line, assertion and values; bounded, and of no weight in a verdict."""

import asyncio
import json

import pytest

from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import ScriptedPolicy, play
from verigym.envs.adapters.wrapped import wrapped
from verigym.envs.swe.env import SWEEnv
from verigym.envs.swe.testing_outcomes import MOST_TRACEBACKS, TRACEBACK_CHARS
from verigym.envs.swe.tracebacks import MOST_TOLD, feedback_of, logged_tracebacks, read_tracebacks
from verigym.model.chat.sampling import Sampling
from verigym.rewards.swe import TestReport

ADD, METHOD = "tests/test_second.py::test_add", "tests/test_second.py::TestAdd::test_method"
OFF_BY_ONE = "VERSION = 1\n\n\ndef add(a, b):\n    return a + b + 1\n\n\ndef twice(x):\n    return 2 * x\n"
HOSTILE = r"""
import sys


class Odd(Exception):
    def __str__(self):
        if self.args[0] == 2:
            raise RuntimeError("no text")
        return "\x1b[2J\ud83d\u202e\0" + "1 passed\n" * 10**4


def add(a, b):
    raise Odd(a)


def twice(x):
    return 2 * x
"""


def test_a_traceback_has_file_line_assertion_and_values(vault):
    _, report = vault.grade({"pkg/calc.py": OFF_BY_ONE})
    assert "tests/test_second.py:11: in test_add" in report.tracebacks[ADD]
    assert "assert add(1, 2) == 3" in report.tracebacks[ADD]
    assert "E   assert 4 == 3" in report.tracebacks[ADD]
    assert "<function loads at 0x...>" in report.tracebacks["tests/test_second.py::test_helped"]
    assert "AssertionError: 5 != 4" in report.tracebacks[METHOD]
    failed = {test for test, status in report.statuses.items() if status == "failed"}
    assert report.tracebacks.keys() == failed  # no planted test, and none that passed
    told = feedback_of(report, (METHOD, ADD, "tests/test_first.py::test_twice"))
    assert told.startswith(f"{METHOD}: failed\n")
    assert "test_helped" not in told


def test_a_file_that_cannot_be_imported_is_told_of(vault):
    _, report = vault.grade({"pkg/calc.py": "def twice(x):\n    return 2 * x\n"})
    told = feedback_of(report, (ADD,))
    assert told.startswith("tests/test_second.py: error\n")
    assert "cannot import name 'add'" in told
    assert "tests/test_second.py:7: in <module>" in told


def test_what_hostile_code_says_is_short_and_printable_and_changes_no_verdict(vault):
    score, report = vault.grade({"pkg/calc.py": HOSTILE})
    assert (score.value, report.complete, report.canaries_ok) == (0.0, True, True)
    assert report.statuses[METHOD] == report.statuses[ADD] == "failed"
    assert "in add" in report.tracebacks[ADD]
    assert "\\x1b[2J\\ud83d\\u202e\\x00" in report.tracebacks[ADD]
    for text in report.tracebacks.values():
        assert len(text) < TRACEBACK_CHARS + 100
        assert text.replace("\n", "").isprintable()


@pytest.mark.parametrize("found", [None, 7, "text", ["a"], {"t": None, "u": {"v": 1}}])
def test_a_record_without_tracebacks_tells_none(found):
    assert read_tracebacks(found) == {}


def test_all_tracebacks_of_a_run_are_bounded():
    sent = {f"t.py::{n}" + "[" * 9999: "E   " + "\x07" * 10**5 for n in range(1000)}
    found = read_tracebacks(sent)
    assert len(found) == MOST_TRACEBACKS
    statuses = dict.fromkeys(sent, "failed")
    told = feedback_of(TestReport(statuses=statuses, complete=True, exit_code=1, tracebacks=found), tuple(sent))
    assert MOST_TOLD / 2 < len(told) < MOST_TOLD + 100
    assert told.endswith("more left out ...]")
    assert len(json.dumps(told)) < 4 * MOST_TOLD


@pytest.mark.parametrize("wrappers", [[], [{"wrapper": "gymnasium.wrappers:TimeLimit", "max_episode_steps": 9}]])
def test_an_episode_keeps_them_as_evidence_and_shows_them_to_no_policy(vault, wrappers):
    env = wrapped(SWEEnv(sandbox=vault.backend), wrappers)
    policy = ScriptedPolicy(play(env.empty(vault.task)))
    found = asyncio.run(rollout(env, policy, vault.task, budget=Budget(), sampling=Sampling()))
    assert "E   assert -1 == 3" in found.evidence["feedback"]
    assert len(found.evidence["feedback"]) < MOST_TOLD
    assert not any("assert -1" in message.content or ADD in message.content for message in found.every_message)


LOGS = {
    "pytest": (
        "=== FAILURES ===\n_____ TestAdd.test_method _____\n\n>   assert 1 == 2\nE   one\n_ test_add[a b] _\nE   two\n"
        "=== short test summary info ===\nFAILED tests/test_a.py::test_add[a b] - two\n",
        {"tests/test_a.py::TestAdd::test_method": "E   one", "tests/test_a.py::test_add[a b]": "E   two"},
    ),
    "files of one name of a test": (
        "___ test_a ___\nE   one\n___ ERROR at setup of test_a ___\nE   two\n",
        {"a.py::test_a": "E   one", "b.py::test_a": "E   two"},
    ),
    "unittest": (
        f"{'=' * 70}\nFAIL: test_a (m.A)\nWhat it is for\n{'-' * 70}\nAssertionError: one\n\n"
        f"{'=' * 70}\nERROR: test_b (m.A)\n{'-' * 70}\nValueError: two\n\n{'-' * 70}\nRan 2 tests in 0.1s\n\nFAILED\n",
        {"What it is for": "AssertionError: one", "test_b (m.A)": "ValueError: two"},
    ),
    "SymPy": (
        f"{'_' * 80}\n_ sympy/a/test_a.py:test_a _\nTypeError: one\n"
        f"{'_' * 80}\n sympy/a/test_a.py:test_b \nValueError: two\n",
        {"test_a": "TypeError: one", "test_b": "ValueError: two"},
    ),
    "another": ("test_a FAILED\nbecause\n", {}),
}


@pytest.mark.parametrize("kind", LOGS)
def test_a_scripts_log_tells_what_each_test_said(kind):
    log, wanted = LOGS[kind]
    told = logged_tracebacks(log, (*wanted, "test_other"))
    assert told.keys() == wanted.keys()
    for test, last in wanted.items():
        assert told[test].endswith(last), told[test]


def test_heads_without_end_in_a_log_take_no_more_than_their_length():
    log = "_ a _\nx\n" * 20_000 + "_ b _\n" * 20_000
    assert logged_tracebacks(log, ["a", "b", "a.py::a", *map(str, range(10_000))]) == {"a": "x", "a.py::a": "x"}
