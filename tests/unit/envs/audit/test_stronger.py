"""What further tests are made of: values near values, bodies otherwise, calls, and what is noted of them."""

import ast
import functools
import re
import sys
import types

import pytest

from verigym.envs.audit.further_tests.calls import Plan, calling_tests, combined, learn
from verigym.envs.audit.further_tests.keeping import Pool, cover
from verigym.envs.audit.further_tests.noting import HELPER, noting
from verigym.envs.audit.further_tests.snapshots import judging_file, snapshots
from verigym.envs.audit.further_tests.targets import examples_in, look_at_calls, targets
from verigym.envs.audit.further_tests.values import is_free, varied
from verigym.envs.audit.further_tests.ways import WAYS, arguments, displays, steps
from verigym.envs.synthesis.probe_values import given_in, source_of


@pytest.mark.parametrize(
    ("source", "hints", "wanted"),
    [
        ("'ab'", (3, "_id"), ["'ab_id'", "'aba'", "'abab'", "None", "b'ab'"]),
        ("'{a!r}'", ("r", "s"), ["'{a!s}'"]),
        ("4", (9,), ["8", "10", "-4", "'4'"]),
        ("[1, 2]", (), ["iter([1, 2])", "(1, 2)", "[2, 1]", "[1, 2, None]"]),
        ("{'a': 1}", (), ["{}", "{'a': 2}", "[('a', 1)]"]),
        ("iter([1, 2])", (), ["[1, 2]", "iter([2, 1])", "iter([])"]),
        ("lambda x: x", (), ["len", "None"]),
        ("__import__('re').compile('a', 2)", (), ["__import__('re').compile('(a)', 2)"]),
        ("VerigymNotes.made('m', 'A', {'x': 1})", (), ["VerigymNotes.made('m', 'A', {'x': 2})"]),
    ],
)
def test_values_near_a_value(source, hints, wanted):
    found = varied(source, hints)
    assert set(wanted) <= set(found)
    assert source not in found
    for one in found:
        compile(one, "value", "eval")


def test_an_expression_is_free_where_it_uses_built_in_names_alone():
    free = ["[1, len('a')]", "lambda x: x % 3", "[y for y in (1, 2)]"]
    bound = ["name", "open('a')", "lambda x: x + other", "'x' * 2 + fixture"]
    assert [is_free(ast.parse(one, mode="eval").body) for one in free + bound] == [True] * 3 + [False] * 4


TEST = """
def test_a():
    box = Box([1, 2])
    box.put("a")
    assert box.all() == ["expected", 1]
"""


def test_a_body_otherwise_leaves_what_is_expected_alone():
    (node,) = ast.parse(TEST).body
    bodies = {way.__name__: [ast.unparse(make()[1]) for make in way(node)] for way in (displays, arguments, steps)}
    assert any("Box([2, 1])" in one for one in bodies["displays"])
    assert any("Box(iter([1, 2]))" in one for one in bodies["arguments"])
    assert any(one.count("box.put") == 2 for one in bodies["steps"])
    assert any("box.put" not in one for one in bodies["steps"])
    assert all("['expected', 1]" in one for kind in ("displays", "arguments") for one in bodies[kind])
    assert ast.unparse(node) == TEST.strip().replace('"', "'")
    assert any(", " in one.what for one in snapshots(TEST, {"test_a"}, most=30, seed="s", ways=WAYS))


def test_what_a_file_is_collected_by_stays():
    text = "@parametrize('a,b', [(1, 2), (3, 4)])\ndef test_a(a, b):\n    assert f(a) == b\n"
    made = snapshots(text, {"test_a"}, most=60, seed="s", ways=WAYS)
    heads = [ast.literal_eval(one.node.decorator_list[0].args[0]) for one in made]
    shapes = [[len(pair.elts) for pair in one.node.decorator_list[0].args[1].elts] for one in made]
    assert set(heads) == {"a,b"}
    assert all(shape == [2, 2] for shape in shapes)
    assert len({ast.unparse(one.node.decorator_list[0]) for one in made}) > 1


CODE = '''
class Box:
    def __init__(self, items=()):
        self.items = list(items)
        self._secret = 1

    def put(self, one):
        self.items.append(one)
        return self

    def last(self, default=None):
        """The last.

        >>> Box([1]).last(default=3)
        1
        """
        return self.items[-1] if self.items else default


def cut(text, size=3):
    return text[:size]


def short(text):
    return cut(text, size=2)


def _hidden(text):
    return text
'''


@pytest.fixture
def module(monkeypatch):
    made = types.ModuleType("boxes")
    exec(CODE, made.__dict__)
    monkeypatch.setitem(sys.modules, "boxes", made)
    return made


def found_targets(told=()):
    base = CODE.replace("[-1] if", "[0] if").replace("[:size]", "[:9]").replace("return text\n", "return None\n")
    return targets({"src/boxes.py": base}, {"src/boxes.py": CODE}, told)


def test_targets_are_what_changes_its_callers_and_their_class_but_nothing_private_that_nobody_told():
    found = {one.name: one for one in found_targets()}
    assert set(found) == {"Box.last", "cut", "short", "Box", "Box.put"}
    assert {name for name, one in found.items() if one.is_changed} == {"Box.last", "cut"}
    assert found["Box.last"].owner == "Box"
    assert (found["Box"].module, found["Box"].parameters, found["cut"].required) == ("boxes", ["items"], ["text"])
    assert "_hidden" in {one.name for one in found_targets({"_hidden"})}


def test_calls_are_seen_in_tests_and_examples():
    found = {one.name: one for one in found_targets()}
    look_at_calls(list(found.values()), ["x = cut('abc', size=len('ab'))\ncut(unknown)\nBox(iter([1]))"])
    look_at_calls(list(found.values()), list(examples_in("As `cut('abcd', 1)`:\n\n    >>> Box([1]).last(default=3)\n")))
    assert found["cut"].seen == [{"text": "'abc'", "size": "len('ab')"}, {"text": "'abcd'", "size": "1"}]
    assert found["Box"].seen == [{"items": "iter([1])"}, {"items": "[1]"}]
    assert found["Box.last"].seen == [{"default": "3"}]


def run(node):
    """The notes of a test of calls."""
    space = {}
    source = HELPER + "\n" + ast.unparse(ast.fix_missing_locations(node))
    with pytest.MonkeyPatch.context() as patch:
        told = []
        patch.setattr(pytest, "fail", lambda message, pytrace: told.append(message))
        exec(source, space)
        space[node.name]()
    return ast.literal_eval(told[0].partition("verigym noted ")[2])


def test_calls_of_functions_and_walks_on_objects_note_what_they_see(module):
    found = found_targets()
    look_at_calls(found, ["cut('abcd', 1)", "Box([1]).last(default=3)", "Box([2]).put(5)"])
    made = calling_tests(found, (3,), Plan(calls=300, walks=10, seed="s"), prefix="")
    calls = [one for one in made if one.test == "cut()"]
    walks = [one for one in made if not one.calls]
    assert calls[0].calls[0] == "verigym_notes.call(cut, 'abcd', size=1)"
    learn(found, [(one, run(one.node)) for one in calls])
    (target,) = [one for one in found if one.name == "cut"]
    assert len(target.seen) > 5
    assert all({"text"} <= set(one) for one in target.seen)
    assert len(walks) == 10
    for one in made:
        notes = run(one.node)
        assert len(notes) == len(one.calls) if one.calls else notes
    module.cut = lambda text, size=3: text[:size] if size != 2 else "wrong"
    told = [notes for one in calls for notes in run(one.node)]
    assert "'wrong'" in told


def test_some_calls_become_a_test_that_judges(module):
    found = found_targets()
    look_at_calls(found, ["cut('abcd', 1)"])
    like = calling_tests(found, (), Plan(calls=30, walks=0, seed="s"), prefix="")[0]
    one = combined("test_varied_kept", like, ["verigym_notes.call(cut, 'abcd', size=1)"])
    text = judging_file("import boxes\n", {one.name: (one, ["[\"'a'\"]"])})
    space = {}
    exec(text, space)
    space["test_varied_kept"]()
    module.cut = lambda text, size: text
    with pytest.raises(AssertionError):
        space["test_varied_kept"]()


@pytest.fixture(scope="module")
def notes():
    space = {}
    exec(HELPER, space)
    return space["VerigymNotes"]


class Plain:
    def __init__(self):
        self.shown, self._hidden = [1], 2


def fails():
    yield 1
    raise KeyError("a")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (iter([1, 2]), "iterator(1, 2)"),
        (fails(), "iterator(1, raises KeyError)"),
        (Plain(), "Plain(shown=list(1))"),
        ({2, 1}, "set(1, 2)"),
        (ValueError("any words"), "raises ValueError"),
        (functools.reduce, "<built-in function reduce>"),
    ],
)
def test_what_is_noted_of_a_value(notes, value, text):
    seen = notes()
    seen.note(value)
    assert seen == [text]


def test_of_a_long_text_all_is_told_apart_and_changed_arguments_are_told(notes):
    seen = notes()
    seen.note("a" * 500 + "b")
    seen.note("a" * 500 + "c")
    assert seen[0] != seen[1]
    assert max(map(len, seen)) < 160
    given = [3, 1]
    seen.call(list.sort, given)
    assert seen[2] == "None and changes to list(1, 3)"
    seen.call({}.popitem)
    assert seen[3] == "raises KeyError"


def test_a_test_whose_time_is_over_ends(notes):
    def late():
        raise TimeoutError("the test takes too long")

    with pytest.raises(TimeoutError):
        notes().call(late)
    own = notes()
    own.call(functools.partial(exec, "raise TimeoutError('of the code itself')"))
    assert own == ["raises TimeoutError"]


def test_an_object_is_made_again_of_what_was_recorded(notes, module):
    box = module.Box([1])
    box.put("a")
    source = source_of(box)
    assert source == "VerigymNotes.made('boxes', 'Box', {'items': [1, 'a'], '_secret': 1})"
    again = eval(source, {"VerigymNotes": notes})
    assert (type(again), again.items) == (module.Box, [1, "a"])
    assert notes.made("boxes", "Gone", {}) is None


def test_what_a_call_is_given_is_noted_as_source():
    found = []

    def called(a, b=2, *rest, key=None, **named):
        found.append(given_in(sys._getframe()))

    called(re.compile("x", re.I), iter([1]), 5, key=len, other=lambda: 1)
    assert found == [
        {"a": "__import__('re').compile('x', 2)", "b": "?iterator", "key": "len", "*": "(5,)", "**": "?"},
    ]


def test_a_copy_tells_at_last_what_became_of_what_it_named():
    (node,) = ast.parse("def test_a():\n    x = [2, 1]\n    x.sort()\n    assert x").body
    assert run(noting(node))[-1] == "list(1, 2)"


def test_the_fewest_units_are_chosen_and_of_equals_a_call():
    units = {("f", "copy", -1): {0, 1}, ("f", "calls", 3): {0, 1}, ("f", "calls", 4): {2}, ("f", "other", -1): {1}}
    assert cover(units) == [("f", "calls", 3), ("f", "calls", 4)]
    assert cover(units, banned=[("f", "calls", 3)]) == [("f", "copy", -1), ("f", "calls", 4)]
    assert Pool(units=units).tells(2)
    assert not Pool(units=units).tells(3)
