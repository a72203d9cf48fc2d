"""Twins: they fail by the test's own means, where it stands, however the file is written."""

import ast
import asyncio
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from verigym.envs.datasets.eval_scripts import START
from verigym.envs.datasets.swe import SWERow
from verigym.envs.swe.grading import grade_patch
from verigym.envs.swe.locating import Index
from verigym.envs.swe.rounds import ROUNDS, Finding, judge_rounds, plan_rounds
from verigym.envs.swe.script_twins import ScriptTwins
from verigym.envs.swe.trust import believed
from verigym.envs.swe.twin_means import definitions, means_of
from verigym.envs.swe.twin_operands import near
from verigym.envs.swe.twin_text import twin_text
from verigym.errors import GradingError
from verigym.rewards.score import Score
from verigym.rewards.swe import TestReport, found_ids

from .conftest import GOLD, patch_of

MEANS = {
    "assert f() == 3": ["assert 1 == 2"],
    "assert f() is None": ["assert None is False"],
    "assert not f()": ["assert not 1"],
    "assert 1 in f() and f()": ["assert 1 in () and bool(0)"],
    "assert isinstance(f(), int)": ["assert isinstance(1, str)"],
    "assert all(f())": ["assert all([0])"],
    "assert f()": ["assert bool(0)"],
    "with pytest.raises(ValueError):\n        f()": ["with pytest.raises(ZeroDivisionError):\n    pass"],
    "pytest.raises(ValueError, f)": ["pytest.raises(ZeroDivisionError, int)"],
    "assert raises(ValueError, f)": ["assert bool(0)"],  # a helper that answers
    "assert f() == pytest.approx(3)": ["assert 1 == 2", "assert 1.0 == pytest.approx(2.0)"],
    "np.testing.assert_allclose(f(), 3)": ["np.testing.assert_allclose(1, 2)"],
    "self.assertEqual(f(), 3)": ["assert not 1", "raise AssertionError"],  # no self here
    "f()": ["assert not 1", "raise AssertionError"],
}


@pytest.mark.parametrize("statement", MEANS)
def test_a_twin_fails_by_what_the_test_uses(statement):
    (chain,) = definitions(ast.parse(f"def test_a():\n    {statement}\n"))
    assert means_of(chain[-1]) == MEANS[statement]


SHAPES = '''\
import unittest
import pytest


def test_short(): assert one() == 1
def test_told():
    """Told."""
    assert one() == 1; assert (
        one()
        == 1)
def test_string():
    text = """
    not code
    """
    assert text
    return
@pytest.mark.parametrize(
    "x", [1])
def test_decorated(x):

    # a comment
    for n in range(1):
        assert n == 0  # the last line
class TestUnit(unittest.TestCase):
    def test_method(self):
        with self.assertRaises(ZeroDivisionError):
            1 / 0
        self.assertEqual("é" "x", one.__name__ + "x" if 0 else "éx")
    if True:
        def test_inside(self):
            self.assertTrue(one())
    async def nothing(self): pass
def one(): return 1
'''
NAMES = [("test_short",), ("test_told",), ("test_string",), ("test_decorated",)]
NAMES += [("TestUnit", "test_method"), ("TestUnit", "test_inside")]


def test_every_twin_of_a_file_fails_and_nothing_else_does(tmp_path):
    wanted = {}
    for number in range(1, 11):
        names = NAMES[::2] if number > 8 else NAMES
        text, found = twin_text(SHAPES, dict.fromkeys(names, number))
        assert found == set(names)
        (tmp_path / f"test_{number}.py").write_text(text, encoding="utf-8")
        wanted[f"test_{number}.py"] = {"::".join(one).partition("[")[0] for one in names}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rA",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        f"--rootdir={tmp_path}",
    ]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    failed: dict[str, set[str]] = {name: set() for name in wanted}
    for path, test in re.findall(r"^FAILED \S*(test_\d+\.py)::([^\s\[]+)", done.stdout, re.M):
        failed[path].add(test)
    assert failed == wanted, done.stdout
    assert done.stdout.count("\nPASSED") == 60 - sum(map(len, wanted.values())), done.stdout


TEXTS = {
    "tests/base.py": "class Base:\n    def test_b(self):\n        pass\n\n\nclass Middle(Base):\n    pass\n",
    "tests/test_a.py": "from base import Middle\nclass TestA(Middle):\n    def test_own(self):\n"
    '        """Tells (all) of it...\n\n        More."""\n\n\ndef test_f(): pass\n',
    "app/tests/test_c.py": "class TestC:\n    def test_b(self): pass\n    def test_own(self): pass\n",
}


@pytest.mark.parametrize(
    ("test", "places"),
    [
        ("tests/test_a.py::test_f[x::y", [("tests/test_a.py", ("test_f",))]),
        ("tests/test_a.py::TestA::test_own", [("tests/test_a.py", ("TestA", "test_own"))]),
        ("tests/test_a.py::TestA::test_b", [("tests/base.py", ("Base", "test_b"))]),
        ("TestA.test_b", [("tests/base.py", ("Base", "test_b"))]),
        ("TestC.test_own", [("app/tests/test_c.py", ("TestC", "test_own"))]),
        ("test_f", [("tests/test_a.py", ("test_f",))]),
        ("test_own (tests.test_a.TestA)", [("tests/test_a.py", ("TestA", "test_own"))]),
        ("test_own (app.tests.test_c.TestC.test_own)", [("app/tests/test_c.py", ("TestC", "test_own"))]),
        ("test_own (test_c.TestC)", [("app/tests/test_c.py", ("TestC", "test_own"))]),
        ("test_b (tests.test_a.TestA)", [("tests/base.py", ("Base", "test_b"))]),
        ("Tells (all) of it...", [("tests/test_a.py", ("TestA", "test_own"))]),
        ("tests/test_a.py::test_nowhere", []),
        ("Nobody says this", []),
    ],
)
def test_a_test_is_found_by_any_name_that_runners_give_it(test, places):
    assert list(Index(TEXTS).find(test)) == places


def test_rounds_are_half_twins_and_the_host_knows_which():
    plans = plan_rounds(["a", "b"], ["c"])
    assert len(plans) == ROUNDS
    for test in "ab":
        numbers = [plan[test] for plan in plans]
        assert numbers.count(0) == ROUNDS // 2
        assert len({number for number in numbers if number}) == ROUNDS // 2
    assert sorted(bool(plan["c"]) for plan in plans if "c" in plan) == [False, True]


def played(plans, *, alive=(), dead=(), **more):
    """What a guest would say: tests in ``alive`` pass as twins too, tests in ``dead`` never pass."""
    return [
        {
            "statuses": {t: "passed" if (not n or t in alive) and t not in dead else "failed" for t, n in plan.items()},
            **{"finished": True, "canaries_ok": True, "tampered": None, **more},
        }
        for plan in plans
    ]


def test_what_the_guest_says_of_its_twins_makes_a_verdict_worse_and_never_better():
    plans = plan_rounds(["a", "b"], ["c"])
    deciding = {"a", "b"}
    assert judge_rounds(plans, played(plans), deciding, set()) == ("", "")
    assert judge_rounds(plans, played(plans, alive="b"), deciding, set())[0].startswith("b passed although")
    assert judge_rounds(plans, played(plans, alive="c"), deciding, set())[0].startswith("c passed although")
    assert judge_rounds(plans, played(plans, dead="a"), deciding, set())[1].startswith("a passed, and did not")
    assert judge_rounds(plans, played(plans, dead="c"), deciding, set()) == ("", "")
    for lost in ([], [{}] * ROUNDS, played(plans)[1:], played(plans, finished=False)):
        assert any(judge_rounds(plans, lost, deciding, set()))
    assert judge_rounds(plans, played(plans, tampered="x.y"), deciding, set())[0]
    assert judge_rounds(plans, played(plans, canaries_ok=False), deciding, set())[0]


def test_a_verdict_that_nothing_speaks_for_has_a_name_and_a_rule():
    won = Score(value=1.0, passed=True, breakdown={"resolved": 1.0}, detail="all tests passed")
    doubtful = Finding(untrusted=("a", "b"))
    assert believed(won, Finding(), "fail") is won
    failed, accepted = (believed(won, doubtful, rule) for rule in ("fail", "accept"))
    assert (failed.value, failed.passed, failed.breakdown) == (0.0, False, {"resolved": 0.0, "trusted": 0.0})
    assert (accepted.value, accepted.passed, accepted.breakdown["trusted"]) == (1.0, True, 0.0)
    assert failed.detail == "not trusted: all tests passed, and no twin could be made of a (and 1 more)"
    with pytest.raises(GradingError, match="not trusted"):
        believed(won, doubtful, "drop")
    assert believed(won, Finding(forged="x"), "accept").value == 0.0


def test_ids_that_were_cut_mean_all_that_begin_with_them():
    statuses = {"t.py::f[deg (a) one]": "passed", "t.py::f[deg (a) two]": "xfailed", "t.py::g[x": "passed"}
    assert found_ids(statuses, ["t.py::f[deg"]) == ("t.py::f[deg (a) one]", "t.py::f[deg (a) two]")
    assert found_ids(statuses, ["t.py::g[x", "t.py::f", "t.py::f[rad"]) == ("t.py::g[x", "t.py::f", "t.py::f[rad")
    mixed = {**statuses, "t.py::f[deg (b)]": "failed"}
    assert found_ids(mixed, ["t.py::f[deg"]) == ("t.py::f[deg",)


def test_a_test_without_a_twin_is_not_trusted(vault):
    """A test whose code stands in no file: it passes, and nothing can be said of it."""
    source = "from pkg.calc import add\n\nexec('def test_made():\\n    assert add(1, 1) == 2')\n"
    brought = patch_of({"tests/test_made.py": source})
    hidden = {**vault.task.hidden, "test_patch": brought, "FAIL_TO_PASS": ["tests/test_made.py::test_made"]}
    task = replace(vault.task, hidden={**hidden, "PASS_TO_PASS": []})
    patch = patch_of({"pkg/calc.py": GOLD})

    def grade(rule):
        return asyncio.run(grade_patch(vault.backend, task, patch, untrusted=rule))[0]

    assert grade("fail").detail.startswith("not trusted: all tests passed")
    assert (grade("fail").value, grade("accept").value) == (0.0, 1.0)
    with pytest.raises(GradingError, match="not trusted"):
        grade("drop")


@pytest.mark.parametrize(
    "literal",
    [
        "5",
        "0",
        "True",
        "2.5",
        "1e308",
        "'a'",
        "b'a'",
        "[1, 2]",
        "(1,)",
        "{'a': 1}",
        "{1, 2}",
        "'q'",
        "b'Q'",
        "''",
        "[[], None]",
        "{}",
    ],
)
def test_another_value_is_of_the_literals_own_type(literal):
    node = ast.parse(literal, mode="eval").body
    value = ast.literal_eval(node)
    for number in range(1, 50):
        other = ast.literal_eval(near(node, number))
        assert type(other) is type(value)
        assert other != value


def test_a_failing_statement_takes_the_place_of_the_tests_own_in_some_twins():
    """What answers falsely once is used up by it, and then the twin passes, which shows the forgery."""
    text = "def test_a(self):\n    got = f(2)\n    self.assertEqual(got, g([2, 2]))\n"
    twins = {twin_text(text, {("test_a",): number})[0] for number in range(1, 9)}
    assert "def test_a(self):\n    got = f(2)\n    self.assertEqual(1, 2)\n" in twins
    approximate = "def test_a():\n    assert f(2) == pytest.approx(3.0)\n"
    twins = {twin_text(approximate, {("test_a",): number})[0] for number in range(1, 9)}
    assert "def test_a():\n    assert 1.0 == pytest.approx(2.0)\n" in twins


def script_row(path, **more):
    return SWERow(
        instance_id="a",
        problem_statement="p",
        base_commit="0" * 40,
        image="i",
        workdir="/testbed",
        FAIL_TO_PASS=[f"{path}::test_a"],
        PASS_TO_PASS=more.get("others", []),
        test_patch="",
        eval_script=f"#!/bin/bash\nset -x\n: '{START}'\npytest -rA\n",
        log_parser="parse_log_pytest",
    )


def test_a_script_with_twins_removes_the_byte_code_of_the_run_before():
    """Python would take the byte code of a text of the same length and second for this one's."""
    row = script_row("tests/test a.py")
    report = TestReport(statuses={"tests/test a.py::test_a": "passed"}, complete=True, exit_code=0)
    twins = ScriptTwins(row, {"tests/test a.py": "def test_a():\n    assert f() == 1\n"}, report)
    script = twins.script({id(group): 1 for group in twins.groups})
    assert "rm -f -- 'tests/__pycache__/test a'.*; cat > 'tests/test a.py'" in script


MARKED = {
    "no mark": ("def test_a():\n    assert f() == 1\n", "expected failure"),
    "another test's": (
        "@pytest.mark.xfail\ndef test_c(): pass\ndef test_a():\n    assert f() == 1\n",
        "expected failure",
    ),
    "a mark": ("@pytest.mark.xfail\ndef test_a():\n    assert f() == 1\n", None),
    "SymPy's mark": ("@XFAIL\ndef test_a():\n    assert f() == 1\n", None),
    "a mark by name": ("old = pytest.mark.xfail(1)\n@old\ndef test_a():\n    assert f() == 1\n", None),
    "the module's": ("pytestmark = pytest.mark.xfail\ndef test_a():\n    assert f() == 1\n", None),
    "its own words": ("def test_a():\n    pytest.xfail()\n", None),
}


@pytest.mark.parametrize("name", MARKED)
def test_an_expected_failure_that_a_script_tells_is_believed_only_where_the_test_speaks_of_it(name):
    """Code under test can raise it. Of a test that decides it is not trusted even then: no twin of it could fail."""
    text, told = MARKED[name]
    text += "def test_b():\n    assert 1 == 1\n"
    row = script_row("t.py", others=["t.py::test_b"])
    report = TestReport(statuses={"t.py::test_a": "xfailed", "t.py::test_b": "passed"}, complete=True, exit_code=0)
    twins = ScriptTwins(row, {"t.py": text}, report)

    async def run(script):
        failed = "assert 1 == 2" in script or script.count("assert 1 == 1") == 0
        return replace(report, statuses={**report.statuses, "t.py::test_b": "failed" if failed else "passed"})

    found = asyncio.run(twins.find_forgery(run))
    if told:
        assert told in found.forged
    else:
        assert (found.forged, found.untrusted[0]) == ("", "t.py::test_a")
