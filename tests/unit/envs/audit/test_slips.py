"""Wrong solutions as people write them, and how those that tests accept are weighed."""

import pytest

from verigym.envs.audit.further_tests.notes import is_plain
from verigym.envs.audit.solutions.slips import slips, spoken_of
from verigym.envs.audit.solutions.variants import Solved, Variant
from verigym.envs.audit.trying import share_of

CASES = {
    "shallow copy": ("def f(x):\n    return deepcopy(x)\n", "[f(x)[0] is x[0] for x in ([[1]],)]", [False], [True]),
    "grouped": (
        "def f(x):\n    return [(k, len(list(g))) for k, g in groupby(x)]\n",
        "f('aba')",
        [("a", 1), ("b", 1), ("a", 1)],
        [("a", 2), ("b", 1)],
    ),
    "one level": (
        "def f(x, d=0):\n    return [f(y, d) for y in x[1:]] if type(x) is list else -x\n",
        "f([0, 2, [0, 3]])",
        [-2, [-3]],
        [2, [0, 3]],
    ),
    "handed back": ("def f(x):\n    return x + 1\n", "f(1)", 2, 1),
    "option unheeded": ("def f(x, up=False):\n    return x.upper() if up else x\n", "f('a', up=True)", "A", "a"),
    "falsy is missing": ("def f(x):\n    return 'none' if x is None else x\n", "f(0)", 0, "none"),
    "nearly the same": ("def f(x):\n    return x.rpartition('.')[0]\n", "f('a.b.c')", "a.b", "a"),
    "taken as it is": ("def f(x):\n    return x.strip() == 'a'\n", "f('a ')", True, False),
    "opposite": ("def f(x):\n    return any(x)\n", "f([0, 1])", True, False),
    "no copy": ("def f(x):\n    y = x[:]\n    y.append(1)\n    return x\n", "f([0])", [0], [0, 1]),
    "one type": ("def f(x):\n    return isinstance(x, (str, bytes))\n", "f(b'')", True, False),
    "the first alone": ("def f(x):\n    return x.replace('a', 'b')\n", "f('aa')", "bb", "ba"),
    "all but the last": ("def f(x):\n    return [y for y in x]\n", "f('ab')", ["a", "b"], ["a"]),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_slip_gives_something_else(kind):
    after, asked, right, wrong = CASES[kind]

    def given(text):
        names = {}
        exec(f"from copy import deepcopy\nfrom itertools import groupby\n{text}", names)
        return eval(asked, names)

    found = [one for one in slips(Solved(base={"a.py": ""}, gold={"a.py": after}), most=30) if one.kind == kind]
    assert given(after) == right
    assert wrong in [given(one.files["a.py"]) for one in found]


def test_slips_come_kinds_in_turn_and_are_of_what_the_reference_brings():
    old = "def g(x):\n    return x.strip()\n"
    new = "def f(x):\n    return [y.lower() for y in x] + [y.upper() for y in x]\n"
    made = slips(Solved(base={"a.py": old}, gold={"a.py": old + new}), most=4)
    assert len({one.kind for one in made}) == 4
    assert all("x.strip()" in one.files["a.py"] for one in made)
    assert slips(Solved(base={"a.py": old}, gold={"a.py": old}), most=4) == []


def test_a_shallow_copy_needs_no_call_where_the_statement_speaks_of_depth():
    copied, other = (Variant(kind=kind, what="", files={}) for kind in ("shallow copy", "handed back"))
    told = "a copy at every depth"
    assert "'depth'" in spoken_of(copied, told)
    assert spoken_of(copied, "a copy") == spoken_of(other, told) == ""


def made(*named):
    return [Variant(kind=kind, what=what, files={}) for kind, what in named]


def test_a_share_is_of_mutants_or_of_kinds_of_slips_or_of_functions_nobody_looks_at():
    spoilt = made(*[("constant", "f")] * 10, ("another value", "f gives more"), ("another value", "f gives less"))
    slipped = made(("handed back", "f gives x back"), ("handed back", "f gives y back"), ("one type", "f"))

    def share(*proven, plainly=True):
        accepted = {id(one) for one in proven}
        return share_of(spoilt, slipped, accepted, accepted if plainly else set())

    assert share() == 0
    assert share(*spoilt[:4]) == 4 / 16
    assert share(spoilt[10]) == 1 / 16
    assert share(*spoilt[10:]) == 1 / 2
    assert share(*slipped[:1]) == share(*slipped[:2]) == 1 / 3
    assert share(*slipped) == 2 / 3
    assert share(*slipped, plainly=False) == 0
    assert share_of([], [], set(), set()) == 0


def test_plain_is_what_two_results_tell():
    assert is_plain("call(f, 1): the reference gives 2, this gives 3")
    assert not is_plain("test_f: the reference gives 2, this gives nothing")
    assert not is_plain("call(f, None): the reference gives raises TypeError, this gives 3")
    assert not is_plain("A() with one = VerigymNotes.made('a', 'A', {}): the reference gives 2, this gives 3")
