"""Answers and oracles that lie: objects that compare as they should not, builtins that answer falsely once."""

import ast
import asyncio
import builtins
import textwrap
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from verigym.envs.swe.grading import grade_patch
from verigym.envs.swe.testing_builtins import bindable, compiled
from verigym.envs.swe.twin_means import definitions
from verigym.envs.swe.twin_operands import operands_of

from .conftest import GOLD, patch_of
from .forgeries import when_called

ORACLE = """\
import unittest

import pytest

from pkg.calc import add


def test_sum():
    got = add(3, 4)
    want = sum([3, 4])
    assert got == want


def test_sorted():
    got = [add(3, 4), 1]
    assert got == sorted([1, 7], reverse=True)


def test_len():
    got = add(3, 4)
    assert got == len("seven..")


def test_more():
    assert add(3, 4) > 6


def test_far():
    assert add(float("inf"), 4) >= 3


def test_between():
    got = add(3, 4)
    assert got >= 7 and got <= 7


def test_holds():
    assert "b" in add("a", "b")


@pytest.mark.parametrize(("a", "b", "want"), [(3, 4, 7), (5, 5, 10)])
def test_given(a, b, want):
    assert add(a, b) == want


class TestAdd(unittest.TestCase):
    def test_greater(self):
        self.assertGreater(add(3, 4), 6)

    def test_in(self):
        self.assertIn("b", add("a", "b"))
"""
ONCE = """
import builtins
real = builtins.{name}
def once(*a, **k):
    builtins.{name} = real
    return {lie}
builtins.{name} = once
"""
COMPARES = """
class Lie:
    __hash__ = None
    def __bool__(self): return True
    def __{name}__(self, other): return {when}
return Lie()
"""
LIES = {
    "sum, once": ("test_sum", when_called(ONCE.format(name="sum", lie="a - b"))),
    "sorted, once": ("test_sorted", when_called(ONCE.format(name="sorted", lie="[a - b, 1]"))),
    "len, once": ("test_len", when_called(ONCE.format(name="len", lie="a - b"))),
    "greater": ("test_more", when_called(COMPARES.format(name="gt", when="True"))),
    "greater than numbers": ("test_more", when_called(COMPARES.format(name="gt", when="type(other) in (int, float)"))),
    "at least and at most": (
        "test_between",
        when_called(
            COMPARES.format(name="ge", when="True").replace("return Lie()", "Lie.__le__ = Lie.__ge__\nreturn Lie()")
        ),
    ),
    "holds everything": ("test_holds", when_called(COMPARES.format(name="contains", when="True"))),
    "holds all short texts": ("test_holds", when_called(COMPARES.format(name="contains", when="len(other) < 12"))),
    "equals what is given": ("test_given", when_called(COMPARES.format(name="eq", when="True"))),
    "equals whole numbers that are given": (
        "test_given",
        when_called(COMPARES.format(name="eq", when="type(other) is int")),
    ),
    "greater, for unittest": ("TestAdd::test_greater", when_called(COMPARES.format(name="gt", when="True"))),
    "holds everything, for unittest": ("TestAdd::test_in", when_called(COMPARES.format(name="contains", when="True"))),
}


def graded(vault, cases):
    room = asyncio.Semaphore(3)

    async def one(test, changes):
        ids = [f"tests/test_oracle.py::{test}"] if test else ["tests/test_oracle.py::test_sum"]
        if test == "test_given":
            ids = [f"{ids[0]}[{values}]" for values in ("3-4-7", "5-5-10")]
        hidden = {**vault.task.hidden, "test_patch": patch_of({"tests/test_oracle.py": ORACLE})}
        task = replace(vault.task, hidden={**hidden, "FAIL_TO_PASS": ids, "PASS_TO_PASS": []})
        async with room:
            return (await grade_patch(vault.backend, task, patch_of(changes), timeout_s=60))[0]

    async def every():
        return await asyncio.gather(*(one(*case) for case in cases))

    return asyncio.run(every())


@pytest.mark.parametrize("name", ["sum, once", "equals what is given"])
def test_a_lie_is_not_believed_and_gold_is(vault, name):
    test, changes = LIES[name]
    lie, gold = graded(vault, [(test, changes), (test, {"pkg/calc.py": GOLD})])
    assert (lie.value, lie.passed) == (0.0, False), lie
    assert not lie.detail.startswith("not trusted")
    assert gold.value == 1.0, gold


@pytest.mark.slow
def test_no_lie_is_believed_and_gold_is(vault):
    gold = {"pkg/calc.py": GOLD}
    for name, score in zip(LIES, graded(vault, LIES.values()), strict=True):
        assert (name, score.value, score.detail.startswith("not trusted")) == (name, 0.0, False), score
    tests = dict.fromkeys([*(test for test, _ in LIES.values()), "test_far"])
    for test, score in zip(tests, graded(vault, [(test, gold) for test in tests]), strict=True):
        assert (test, score.value) == (test, 1.0), score


def operands(body, arguments=""):
    (chain,) = definitions(ast.parse(f"def test_a({arguments}):\n{textwrap.indent(body, '    ')}\n"))
    return [ast.unparse(node) for node, _ in operands_of(chain[-1])]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("assert f() == 3", ["3"]),
        ("assert 3 == f()", ["3"]),
        ("assert f() > 3", ["3"]),
        ("assert -3 <= f()", ["-3"]),
        ("assert 'a' in f()", ["'a'"]),
        ("assert f() == 3 and g() == 'b'", ["3", "'b'"]),
        ("assert f(a) == b", ["b"]),
        ("assert f(a) == b[0]", ["b[0]"]),
        ("self.assertEqual(f(), [1])", ["[1]"]),
        ("self.assertLess(f(), 3)", ["3"]),
        ("self.assertIn('a', f())", ["'a'"]),
        # what may hold of another value too, or does not run whenever the test passes
        ("assert b == IsInt()", []),
        ("assert f(a) == mock.ANY", []),
        ("assert b == approx(3)", []),
        ("assert f() == None", []),
        ("assert f() == g()", []),
        ("assert 5 in f()", []),
        ("assert a == b", []),
        ("assert 3 < 4", []),
        ("if a:\n    assert f() == 3", []),
        ("assert f() == 3\nreturn", []),
        ("assert_equal(f(), 3)", []),
    ],
)
def test_what_of_a_comparison_can_be_replaced(body, found):
    assert operands(body, "a, b") == found


@pytest.mark.parametrize("relation", [">", ">=", "<", "<="])
@pytest.mark.parametrize("turned", [False, True])
def test_no_number_is_beyond_a_bound_of_a_twin(relation, turned):
    text = f"3 {relation} x" if turned else f"x {relation} 3"
    (chain,) = definitions(ast.parse(f"def test_a():\n    assert {text}\n"))
    ((node, text_of),) = operands_of(chain[-1])
    for number in range(1, 5):
        twin = text.replace(ast.unparse(node), text_of(node, number))
        for x in (float("inf"), -float("inf"), 10**400, -(10**400), 3, 3.5, True, Fraction(1, 3)):
            assert not eval(twin, {"x": x}), (twin, x)


@pytest.mark.parametrize(
    "bound", [3, -0.5, float("inf"), "a", b"a", [1], (1,), {"a": 1}, {1}, frozenset({1}), True, None]
)
def test_another_value_differs_from_what_is_given(bound):
    (chain,) = definitions(ast.parse("def test_a(b):\n    assert f() == b\n"))
    ((node, text_of),) = operands_of(chain[-1])
    for number in range(1, 20):
        other = eval(text_of(node, number), {"_verigym_old": bound})
        assert other != bound
        assert bound is None or type(other) in (type(bound), set)


SOURCE = b"""
from __future__ import annotations

def call(x: int, y: list[int] = list()) -> int:
    assert isinstance(x, (int, str)) and type(x) in {int, str}
    match x:
        case int():
            found = [str(i) for i in range(x)]
    class Own(dict):
        held: int = int("3")
    return sum(y) + len(y), found, "%s" % (int,), f"{len(y)}", int | None, list[int], Own(b=2)

def told():
    return call.__annotations__

def patched(monkeypatch):
    monkeypatch.setattr("builtins.abs", lambda x: 7)
    return abs(-1)
"""


def test_builtins_of_a_test_file_are_its_own():
    tree = ast.parse(SOURCE)
    module = {}
    exec(compiled(tree, "test_a.py", bindable(tree, SOURCE)), module)
    names: Any = vars(builtins)
    taken = {name: names[name] for name in ("sum", "len", "isinstance", "str", "range")}
    names.update(dict.fromkeys(taken))
    try:
        found = module["call"](2, [1, 2])
    finally:
        names.update(taken)
    assert found == (5, ["0", "1"], "<class 'int'>", "2", int | None, list[int], {"b": 2})
    assert module["told"]() == {"x": "int", "y": "list[int]", "return": "int"}
    with pytest.MonkeyPatch.context() as patch:
        assert module["patched"](patch) == 7


@pytest.mark.parametrize(
    "text",
    ["from numpy import *\n", "import dis\n", "sum = None\n", "def sum(): pass\n", "import sum\n", "x = 'sum'\n",
     "def f(sum): pass\n", "try: pass\nexcept E as sum: pass\n", "patch('builtins.sum')\n", "import a.b as sum\n"],
)  # fmt: skip
def test_a_name_that_may_mean_something_else_is_left(text):
    assert "sum" not in bindable(ast.parse(text), text.encode())
    assert "sum" in bindable(ast.parse("x = 1"), b"x = 1")
