"""Wrong and right solutions made of a reference, and copies of tests that note what they see."""

import ast
import subprocess
import sys

import pytest

from verigym.envs.audit.coverage import executable_spans
from verigym.envs.audit.further_tests.noting import notes_in
from verigym.envs.audit.further_tests.snapshots import judging_file, noting_file, snapshots
from verigym.envs.audit.solutions.mutants import mutants
from verigym.envs.audit.solutions.rewrites import choices, spelled_in
from verigym.envs.audit.solutions.structure import structures
from verigym.envs.audit.solutions.variants import Solved, changed_functions, changed_lines, diff_of

BASE = '''\
def grade(points, limit):
    """Say it."""
    if points > limit:
        return "lots"
    return points
'''
GOLD = '''\
import warnings


def grade(points, limit, *, strict=False):
    """Say it."""
    top = limit
    if points >= top and not strict:
        return "many"
    else:
        warnings.warn(f"few points: {points}")
    return checked(points, most=top)


def checked(points, most=9, least=0):
    if points < least:
        raise ValueError("fewer than none: " + str(points))
    return points + 1
'''
SOLVED = Solved(base={"a.py": BASE}, gold={"a.py": GOLD}, statement="grade counts wrongly")


def call(text, expression):
    names = {}
    exec(compile(text, "a.py", "exec"), names)
    return eval(expression, names)


def test_what_a_reference_changes_is_known_by_line_and_function():
    assert changed_lines("a\nb\nc\n", "a\nB\nc\nd\n") == {2, 4}
    assert changed_lines("a\nb\nc\n", "a\nc\n") == {2}
    assert set(changed_functions(BASE, GOLD)) == {"grade", "checked"}
    assert set(changed_functions(GOLD, GOLD.replace("+ 1", "+ 2"))) == {"checked"}
    assert (
        set(changed_functions(GOLD, GOLD.replace("    return points + 1", "    # once\n    return points + 1")))
        == set()
    )


def test_mutants_are_other_programs_of_many_kinds_and_the_same_every_time():
    made = mutants(SOLVED, most=50, seed="one")
    texts = [one.files["a.py"] for one in made]
    assert len(set(texts)) == len(texts)
    trees = {ast.dump(ast.parse(text)) for text in texts if text is not None}
    assert ast.dump(ast.parse(GOLD)) not in trees
    assert ast.dump(ast.parse(BASE)) not in trees
    assert {"function reverted", "comparison", "constant", "boolean_operator", "string constant"} <= {
        one.kind for one in made
    }
    assert made == mutants(SOLVED, most=50, seed="one")
    assert len(mutants(SOLVED, most=3, seed="one")) == 3


def test_a_statement_of_several_lines_is_one_that_any_of_them_runs():
    head = (
        "def f(a):\n    global b\n    if (\n        a > 1\n        and a < 9\n    ):\n        b = [\n            a,\n"
    )
    text = head + "        ]\n    for c in (1, 2):\n        continue\n    return b\n"
    spans = executable_spans(Solved(base={"a.py": ""}, gold={"a.py": text}))
    assert spans == [("a.py", 3, 6), ("a.py", 7, 9), ("a.py", 10, 10), ("a.py", 12, 12)]


def test_messages_are_no_string_constants_to_spoil():
    shown = [
        diff_of(SOLVED.gold, one.files) for one in mutants(SOLVED, most=99, seed="") if one.kind == "string constant"
    ]
    assert len(shown) == 1
    assert "manyx" in shown[0]


def test_what_was_chosen_and_nobody_told_is_chosen_otherwise():
    found = {(one.variant.kind, one.spelled) for one in choices(SOLVED) if one.spelled}
    assert found == {
        ("another name", "checked"),
        ("another parameter", "grade(strict="),
        ("another parameter", "checked(points="),
        ("another parameter", "checked(most="),
        ("another parameter", "checked(least="),
        ("another wording", "few points: "),
        ("another wording", "fewer than none: "),
    }  # the order of most and least stays: grade gives one of them by name, but points by place


@pytest.mark.parametrize("told", ["checked", "strict"])
def test_what_is_told_or_stands_at_base_is_no_choice(told):
    stated = Solved(base=SOLVED.base, gold=SOLVED.gold, statement=f"name it {told}")
    known = Solved(base=SOLVED.base, gold=SOLVED.gold, known=frozenset({told}))
    for solved in (stated, known):
        assert not {told, f"grade({told}="} & {one.spelled for one in choices(solved)}


def test_every_right_solution_does_the_same():
    variants = [one.variant for one in choices(SOLVED) if one.spelled] + structures(SOLVED)
    assert {"branches swapped", "comparison turned", "result named", "locals renamed", "extracted"} <= {
        one.kind for one in variants
    } | {"comparison turned"}
    for one in variants:
        text = one.files["a.py"]
        for points in (3, 4, 5):
            assert call(text, f"grade({points}, 4)") == call(GOLD, f"grade({points}, 4)"), one.kind
        with pytest.raises(ValueError):
            call(text, "grade(-3, 4)")


def test_a_function_in_a_function_is_not_taken_out_of_it():
    text = "def f(a):\n    def inner(b):\n        c = a + b\n        return c\n    return inner(1)\n"
    made = structures(Solved(base={"a.py": ""}, gold={"a.py": text}))
    assert {call(one.files["a.py"], "f(1)") for one in made} == {2}
    assert [one.what for one in made if one.kind == "extracted"] == ["f"]


def test_a_call_is_left_out_and_its_argument_stays():
    text = "def f(names):\n    return sorted(set(names), key=len) + list(names)\n"
    made = mutants(Solved(base={"a.py": ""}, gold={"a.py": text}), most=50, seed="")
    left = [one.files["a.py"] or "" for one in made if one.kind == "call left out"]
    assert len(left) == 2
    assert any("sorted((names), key=len)" in one for one in left)
    assert any("+ (names)" in one for one in left)


def test_a_function_that_looks_at_itself_is_left_as_it_is():
    text = "def f(a):\n    b = a\n    return locals()\n"
    assert structures(Solved(base={"a.py": ""}, gold={"a.py": text})) == []


@pytest.mark.parametrize(
    ("spelled", "kind", "test", "found"),
    [
        ("checked", "another name", "from a import checked", True),
        ("checked", "another name", "unchecked = 1", False),
        ("few points given here", "another wording", 'match="points given here"', True),
        ("few points given here", "another wording", 'match="points of here"', False),
        ("too few", "another wording", '"too few"', True),
    ],
)
def test_a_refusal_counts_where_a_test_spells_it(spelled, kind, test, found):
    assert bool(spelled_in(spelled, kind, {"t.py": test})) == found


TESTS = """\
import unittest
import pytest
from a import grade


@pytest.mark.parametrize("points", [3, 9])
def test_grade(points):
    assert grade(points, 4) in ("many", 4)
    with pytest.raises(ValueError):
        grade(-1, 4)


class TestMore(unittest.TestCase):
    def test_many(self):
        self.assertEqual(grade(5, 4), "many")
"""


def run(folder, tests, text):
    (folder / "a.py").write_text(text)
    (folder / "test_a.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", "--tb=line", "test_a.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_copies_of_tests_note_what_they_see_and_judge_by_it(tmp_path):
    made = snapshots(TESTS, {"test_grade", "TestMore.test_many"}, most=60, seed="s")
    assert {one.test for one in made} == {"test_grade", "TestMore.test_many"}
    assert [one.what for one in made].count("") == 2
    varied = next(one for one in made if one.test == "TestMore.test_many" and one.what == "5 -> 4")
    code, said = run(tmp_path, noting_file(TESTS, [varied]), GOLD)
    assert code == 1
    notes = next(found for line in said.splitlines() if (found := notes_in(line)))
    assert notes == "[\"'many'\"]"
    judging = judging_file(TESTS, {varied.name: (varied, [notes])})
    assert run(tmp_path, judging, GOLD)[0] == 0
    wrong = GOLD.replace("points >= top", "points > top")
    assert run(tmp_path, TESTS, wrong)[0] == 0  # the tests that there are do not notice
    assert run(tmp_path, judging, wrong)[0] == 1


@pytest.mark.parametrize("message", ["", "verigym noted [1", "AssertionError: 1 == 2"])
def test_what_is_no_note_is_none(message):
    assert notes_in(message) is None
