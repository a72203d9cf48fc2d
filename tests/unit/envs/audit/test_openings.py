"""Choices nobody was told of beyond names, ways to write a helper, solutions for one input, and times to run at."""

import ast
import datetime

import pytest

from verigym.envs.audit.certificate import SCORES, Finding
from verigym.envs.audit.classes import WHOLLY, classify
from verigym.envs.audit.further_tests.snapshots import given_options
from verigym.envs.audit.manners import manners
from verigym.envs.audit.solutions.inlining import inlined, moved
from verigym.envs.audit.solutions.mutants import mutants
from verigym.envs.audit.solutions.openings import errors, keys, places, prints, sequences
from verigym.envs.audit.solutions.rewrites import choices, spelled_in
from verigym.envs.audit.solutions.special import special_cases
from verigym.envs.audit.solutions.variants import Solved
from verigym.envs.synthesis.steady import moved_clocks

GOLD = """\
from rates import rate


def total(days):
    return {"amount": double(days), "label": ("amount", rate)[0]}


def double(one):
    return one + one


class Bill:
    def __init__(self, days):
        self.days = days

    def __repr__(self):
        return f"<{self.days}>"
"""
SOLVED = Solved(
    base={"bill.py": "", "rates.py": None},
    gold={"bill.py": GOLD, "rates.py": "rate = 3\n"},
    statement="total tells how much, and how. All rates are of one day.",
)


def run(text, expression, **names):
    names["__builtins__"] = __builtins__
    exec(compile(text.replace("from rates import rate", "rate = 3"), "a.py", "exec"), names)
    return eval(expression, names)


def test_a_key_that_nobody_told_is_another_everywhere():
    found = {key: variant.files["bill.py"] for variant, key in keys(SOLVED)}
    assert set(found) == {"amount", "label"}
    assert run(found["amount"], "total(2)") == {"amount_here": 4, "label": "amount_here"}
    told = Solved(base=SOLVED.base, gold=SOLVED.gold, statement="the amount", known=frozenset({"label"}))
    assert list(keys(told)) == []


REFUSING = """\
class Box:
    def __getitem__(self, key):
        raise KeyError(key)


def only(one):
    if not one:
        raise KeyError(one)
    if one == "stop":
        raise StopIteration
    return sorted(one)
"""


def test_an_error_of_which_no_class_was_told_is_another():
    def found(statement):
        return list(errors(Solved(base={"a.py": ""}, gold={"a.py": REFUSING}, statement=statement)))

    ((variant, name),) = found("only of nothing is an error.")
    assert name == "KeyError"
    assert variant.files["a.py"] == REFUSING.replace("raise KeyError(one)", "raise ValueError(one)")
    assert found("only of nothing is an error, a KeyError.") == found("only gives what is there.") == []


def test_an_order_of_results_of_which_nothing_was_told_is_another():
    def found(statement, base=""):
        return list(sequences(Solved(base={"a.py": base}, gold={"a.py": REFUSING}, statement=statement)))

    ((variant, name),) = found("only tells what is there.")
    assert name == "only"
    assert run(variant.files["a.py"], "only('bca')") == ["c", "b", "a"]
    assert found("in alphabetical order") == found("only('ab') is ['a', 'b']") == found("", base="only = 1") == []


def test_how_an_object_prints_is_another_text_unless_the_statement_speaks_of_it():
    ((variant, _),) = prints(SOLVED)
    assert run(variant.files["bill.py"], "repr(Bill(4))") == "zzz <4>"
    assert list(prints(Solved(base=SOLVED.base, gold=SOLVED.gold, statement="repr shows the days"))) == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [("All rates are of one day.", True), ("put it into rates.py", False), ("`from rates import rate`", False)],
)
def test_a_module_that_is_not_named_has_another_name(statement, found):
    made = list(places(Solved(base=SOLVED.base, gold=SOLVED.gold, statement=statement)))
    assert len(made) == found
    for variant, module in made:
        assert module == "rates"
        assert variant.files["rates.py"] is None
        assert variant.files["rates_placed_here.py"] == "rate = 3\n"
        assert "from rates_placed_here import rate" in variant.files["bill.py"]


def test_helpers_are_written_out_or_stand_elsewhere():
    (inline,) = inlined(SOLVED)
    assert "double(days)" not in inline.files["bill.py"]
    assert run(inline.files["bill.py"], "total(2)") == run(GOLD, "total(2)")
    texts = {one.what: one.files["bill.py"] for one in moved(SOLVED)}
    assert set(texts) == {"total", "double"}
    for text in texts.values():
        assert text != GOLD
        assert run(text, "total(2), repr(Bill(1))") == run(GOLD, "total(2), repr(Bill(1))")


def test_what_a_module_needs_while_it_is_imported_stays():
    text = "def two():\n    return 2\n\n\nFOUR = two() * 2\n"
    assert list(moved(Solved(base={"a.py": ""}, gold={"a.py": text}))) == []


def test_a_helper_whose_names_mean_something_else_there_is_not_written_out():
    text = "rate = 3\n\n\ndef fee(days):\n    return days * rate\n\n\ndef told(rate):\n    return fee(rate)\n"
    assert list(inlined(Solved(base={"a.py": ""}, gold={"a.py": text}))) == []
    clear = text.replace("told(rate)", "told(one)").replace("fee(rate)", "fee(one)")
    assert len(list(inlined(Solved(base={"a.py": ""}, gold={"a.py": clear})))) == 1


def test_a_parameter_counts_where_a_test_gives_it_by_name():
    spelled = {one.spelled for one in choices(SOLVED) if one.variant.kind == "another parameter"}
    assert spelled == {"Bill(days=", "total(days="}  # the statement has "one"
    for test, refused in (("total(days=2)", True), ("total(2); days = 3", False), ("double(days=2)", False)):
        assert bool(spelled_in("total(days=", "another parameter", {"t.py": test})) is refused


def test_a_special_case_is_right_for_one_input_of_the_tests():
    before = "def fee(days):\n    return 0\n"
    after = "def fee(days):\n    return days * 5\n\n\ndef new(a, b=1):\n    return a + b\n"
    solved = Solved(base={"a.py": before}, gold={"a.py": after})
    tests = {"t.py": "def test_a():\n    assert fee(3) == 15\n    assert new(2, b=7) == 9\n    assert fee(x)\n"}
    found = {one.what: one.files["a.py"] for one in special_cases(solved, tests)}
    assert set(found) == {"fee(days=3) alone", "new(a=2, b=7) alone"}
    assert run(found["fee(days=3) alone"], "fee(3), fee(4), new(1)") == (15, 0, 2)
    assert run(found["new(a=2, b=7) alone"], "new(2, 7), new(2, 8), fee(4)") == (9, None, 20)
    assert "special case" in {one.kind for one in mutants(solved, most=9, seed="", tests=tests)}


def test_a_special_case_of_a_method_asks_the_method_as_it_was():
    before = "class A:\n    def fee(self, days):\n        return -days\n"
    after = "class A:\n    def fee(self, days):\n        return days\n"
    solved = Solved(base={"a.py": before}, gold={"a.py": after})
    (one,) = special_cases(solved, {"t.py": "A().fee(3)"})
    assert run(one.files["a.py"], "A().fee(3), A().fee(4)") == (3, -4)


def test_a_condition_of_a_comprehension_can_be_dropped():
    after = "def f(xs):\n    return [x for x in xs if x > 1]\n"
    made = mutants(Solved(base={"a.py": ""}, gold={"a.py": after}), most=50, seed="")
    (text,) = [one.files["a.py"] for one in made if one.kind == "condition dropped"]
    assert run(text, "f([1, 2])") == [1, 2]


def test_results_may_be_others_of_the_same_type():
    after = "def f(x):\n    if x is None:\n        return None\n    return x, [x]\n\n\ndef g(x):\n    return x > 1\n"
    made = mutants(Solved(base={"a.py": ""}, gold={"a.py": after}), most=50, seed="")
    found = {one.what: one.files["a.py"] for one in made if one.kind == "another value"}
    assert set(found) == {"f gives more", "f gives less"}
    assert run(found["f gives more"], "f(1), f(None), g(2)") == ((1, [1], [1]), None, True)
    assert run(found["f gives less"], "f(1), f(None), g(2)") == ((1,), None, True)


def test_a_parameter_may_not_be_looked_at():
    after = 'class A:\n    def f(self, x, *, y=1):\n        """Both."""\n        return x, y\n'
    made = mutants(Solved(base={"a.py": ""}, gold={"a.py": after}), most=50, seed="")
    found = {one.what: one.files["a.py"] for one in made if one.kind == "parameter unlooked"}
    assert set(found) == {"A.f does not look at x", "A.f does not look at y"}
    assert run(found["A.f does not look at x"], "A().f(3), A().f('a', y='b')") == ((0, 1), ("", "b"))


def test_a_copy_gives_what_the_tests_leave_out():
    (node,) = ast.parse("def test_a():\n    assert f(1) == 2\n    assert f(1, strict=True)\n").body
    made = dict(given_options(node, {"f": [("strict", False)], "g": [("other", 1)]}))
    assert set(made) == {"f(..., strict=True)"}
    assert "f(1, strict=True) == 2" in ast.unparse(made["f(..., strict=True)"])


def test_clocks_come_to_a_week_end_a_leap_day_night_and_other_years():
    for day in range(1, 8):
        now = datetime.datetime(2027, 3, day, 10, 30)
        times = [now + datetime.timedelta(seconds=seconds) for seconds in moved_clocks(now).values()]
        assert any(one.weekday() == 6 and one.date() > now.date() for one in times)
        assert any((one.month, one.day) == (2, 29) for one in times)
        assert {one.year for one in times} >= {2024, 2028, 2032}
        assert min(one.hour for one in times) < 1
        assert max(one.hour for one in times) > 22


def test_short_suites_are_repeated_more_often_and_in_more_manners_and_all_are_held_up():
    short, long = (manners(datetime.datetime(2027, 3, 1), suite_s=seconds) for seconds in (0.5, 60.0))
    again = [sum(name.startswith("again") for name in one) for one in (short, long)]
    assert again == [8, 1]
    held, orders, clocks = (
        [len({getattr(one, name) for one in of.values()} - {"", 0}) for of in (short, long)]
        for name in ("held_up", "order", "clock_s")
    )
    assert (held, orders, clocks) == ([3, 1], [3, 1], [4, 1])


@pytest.mark.parametrize(("where", "kind"), [(WHOLLY, "unrelated"), ("t.py::test_a", "weak")])
def test_unrelated_comes_first_where_it_holds_of_all_deciding_tests(where, kind):
    scores = {**dict.fromkeys(SCORES, 0.0), "weak": 0.9}
    finding = Finding(kind="unrelated", what="no deciding test comes to it", where=where)
    found, _ = classify(scores, dict.fromkeys(SCORES, "measured"), [finding], ran=True)
    assert found == kind
