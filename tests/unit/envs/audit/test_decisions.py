"""What a reference decides and nobody told is decided otherwise; what was told, or holds at base, is left alone."""

import warnings

import pytest

from verigym.envs.audit.bench import Outcome
from verigym.envs.audit.coverage import changed_code, named_in
from verigym.envs.audit.solutions.openings import looked_up, tails
from verigym.envs.audit.solutions.rewrites import Choice, choices, spelled_in
from verigym.envs.audit.solutions.variants import Solved, Variant
from verigym.envs.audit.trying import is_refusal


def decided(after, statement, base=""):
    """The sources with one decision made otherwise."""
    solved = Solved(base={"a.py": base}, gold={"a.py": after}, statement=statement)
    return [one.variant.files["a.py"] for one in choices(solved) if not one.spelled]


def given(text, expression):
    """What an expression gives, or the class of what it raises; a warning counts as raised."""
    names = {}
    exec(compile(text, "a.py", "exec"), names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return eval(expression, names)
        except Exception as error:
            return type(error).__name__


UP = "def up(path):\n    if not path:\n        return None\n    return path[:-1]\n"
HERE = "def up(path):\n    if len(path) == 0:\n        return path\n    return path[:-1]\n"
FOUND = "def at(xs, x):\n    for n, y in enumerate(xs):\n        if x == y:\n            return n\n    return None\n"
NOTICED = "import warnings\n\n\ndef base(n):\n    if n > 36:\n        warnings.warn('too many', RuntimeWarning)\n"
REFUSED = "def half(n):\n    if n % 2:\n        raise ValueError('odd')\n    return n // 2\n"
CHAINED = "class A:\n    def put(self, x):\n        self.x = x\n        return self\n"
NEAR = "def near(x, xs):\n    return min(xs, key=lambda y: abs(x - y))\n"
BEST = """\
def near(x, xs):
    best = None
    for y in xs:
        if best is None or abs(x - y) < best:
            best, found = abs(x - y), y
    return found
"""
NAMED = """\
from itertools import count


def free(name, taken):
    for n in count(2):
        if (other := f'{name}-{n}') not in taken:
            return other
"""
WHILE = "def free(taken):\n    n = 2\n    while f'{n}' in taken:\n        n += 1\n    return str(n)\n"
LINES = "def numbered(xs):\n    return [(n, x) for n, x in enumerate(xs, 1)]\n"
HALVES = "def about(x):\n    return round(x)\n"
INSIDE = "def inside(x, low, high):\n    return low <= x < high\n"
BOTH = "def both(a, b):\n    return {**a, **b}\n"
BY_KEY = "def by(xs):\n    d = {}\n    for x in xs:\n        d[x[0]] = x\n    return d\n"
ONCE = "def kinds(xs):\n    return sorted(set(xs))\n"
LISTED = "def evens(xs):\n    return [x for x in xs if x % 2 == 0]\n"
YIELDED = "def evens(xs):\n    for x in xs:\n        yield x\n"
AROUND = "def told(n):\n    return f'<{n}>' if n else 'gone'\n"
JOINED = "def told(xs):\n    return '; '.join(xs)\n"
LOUD = "def loud(x):\n    return str(x).upper()\n"
ALIKE = "def alike(a, b):\n    return a.strip() == b.strip()\n"
WIDE = "def wide(x, size=10):\n    return x * size\n"
ENDED = "def ended(x, suffix='!?'):\n    return x + suffix\n"
EQUAL = "class A:\n    def __len__(self):\n        return 3\n"

CASES = {
    "None for the least": (UP, "up([])", ["ValueError"], "Of the root it is None."),
    "itself for the least": (HERE, "up([])", [None], "An empty one stays."),
    "None where nothing is found": (FOUND, "at('a', 'b')", ["ValueError"], "If it is missing, None."),
    "a warning": (NOTICED, "base(99)", ["ValueError"], "It should warn of it."),
    "another warning": (NOTICED, "base(99)", ["UserWarning"], "It should warn with a RuntimeWarning."),
    "an error": (REFUSED, "half(3)", ["RuntimeError"], "Odd ones fail."),
    "a chain": (CHAINED, "A().put(3)", [None], "It returns itself."),
    "the first of equal ones": (NEAR, "near(2, [1, 3])", [3], "Of two the smaller."),
    "a running best": (BEST, "near(2, [1, 3])", [3], "Of two the first."),
    "the number to begin with": (NAMED, "free('a', [])", ["a-3", "a-1"], "a-2 and so on."),
    "a number that is counted up": (WHILE, "free([])", ["3", "1"], "It starts anew."),
    "numbers beside what they count": (
        LINES,
        "numbered('a')",
        [((1, "a"),), [(2, "a")], [(0, "a")]],
        "A list, from one on.",
    ),
    "rounding": (HALVES, "about(2.7)", [2], "Rounded, halves to the even one."),
    "halves": (HALVES, "about(2.5)", [3], "Rounded, halves to the even one."),
    "ends": (INSIDE, "[inside(n, 1, 3) for n in (1, 3)]", [[False, False], [True, True]], "low <= x < high"),
    "which wins": (BOTH, "both({1: 2}, {1: 3})", [{1: 2}], "The second overrides the first."),
    "which wins of a key": (BY_KEY, "by(['ab', 'ac'])", [{"a": "ab"}], "The last one stays."),
    "what comes twice": (ONCE, "kinds('aba')", [["a", "a", "b"], ("a", "b")], "A list of each one."),
    "a list": (LISTED, "evens((1, 2))", [(2,)], "A list."),
    "an iterator": (YIELDED, "evens('a')", [["a"]], "It yields them."),
    "texts around": (AROUND, "[told(0), told(1)]", [["zzgone", "zz<1zz>"]], "<1>, or 'gone'"),
    "a separator": (JOINED, "told('ab')", ["azz; b"], "with a semicolon"),
    "case": (LOUD, "loud('a')", ["a"], "in capitals"),
    "blanks": (ALIKE, "alike('a ', 'a')", [False], "White space does not matter."),
    "a number by default": (WIDE, "wide('a')", ["a" * 20], "of 10 if nothing is said"),
    "a text by default": (ENDED, "ended('a')", ["azz!?"], "ended(x, suffix='!?')"),
    "a protocol": (EQUAL, "len(A())", ["TypeError"], "len() of it is three."),
}
SILENT = {
    "another warning": "It should warn of it.",
    "halves": "Rounded to a whole number.",
    "ends": "Whether x is between low and high.",
    "which wins": "A dictionary of all of them.",
}


@pytest.mark.parametrize("name", CASES)
def test_what_nobody_told_is_decided_otherwise(name):
    after, asked, otherwise, telling = CASES[name]
    silent = SILENT.get(name, "Please add it.")
    assert [given(text, asked) for text in decided(after, silent)] == otherwise
    assert [given(text, asked) for text in decided(after, telling) if given(text, asked) in otherwise] == []
    assert given(after, asked) not in otherwise


@pytest.mark.parametrize(
    ("after", "base"),
    [
        (UP, "def down(path):\n    return None\n"),
        (NOTICED, "def warn():\n    pass\n"),
        (REFUSED, "def third(n):\n    raise ValueError(n)\n"),
        (CHAINED, "class B:\n    def put(self):\n        return self\n"),
        (LISTED, "def odds(xs):\n    return list(xs)\n"),
        (AROUND, "MARKS = '<', '>', 'gone'\n"),
        (LOUD, "name = 'a'.upper()\n"),
        (WIDE, "def high(x, size=10):\n    return x\n"),
    ],
)
def test_as_a_neighbour_at_base_decides_is_no_choice(after, base):
    assert len(decided(base + after, "Please add it.", base)) < len(decided(after, "Please add it."))


IN_SETS = "def common(a, b):\n    for x in set(a) & set(b):\n        yield x\n"
IN_ORDER = "def common(a, b):\n    for x in a:\n        if x in b:\n            yield x\n"


def test_what_came_in_no_order_comes_in_another_one_than_the_reference_has():
    ((text),) = decided(IN_ORDER, "It should be the same order in each run.", IN_SETS)
    assert given(text, "list(common('abc', 'cab'))") == ["c", "b", "a"]
    assert decided(IN_ORDER, "In the order of the first.", IN_SETS) == decided(IN_ORDER, "", IN_ORDER) == []


COUNTED = """\
def runs(xs):
    n = 1
    found = []
    for a, b in zip(xs, xs[1:]):
        if a == b:
            n += 1
        else:
            found.append((a, n))
            n = 1
    return f"{found} and {n}"
"""
DIVIDED = "def least(x):\n    for n in count(2):\n        if x % n == 0:\n            return f'{n}'\n"
DEPTH = "def deep(xs):\n    n = 9\n    for x in xs:\n        if n > 0:\n            n -= x\n    return n\n"


@pytest.mark.parametrize("after", [COUNTED, DIVIDED, DEPTH])
def test_what_is_computed_with_is_no_choice(after):
    assert decided(after, "Please add it, with 'and' between them.") == []


def test_what_stands_in_an_f_string_is_written_otherwise_where_it_stands_or_not_at_all():
    after = "def f(x):\n    return (\n        f'ä '\n        f'{min(x, key=len)}!'\n    )\n"
    found = [given(text, "f(['b', 'c'])") for text in decided(after, "Please add it, with words and !.")]
    assert set(found) <= {"zzä b!", "ä c!"}


KNOWN = "class A:\n    def do_get(self):\n        pass\n\n    def do_put(self):\n        pass\n"
BROUGHT = KNOWN + "\n    def do_drop_all(self):\n        pass\n"


def test_the_part_of_a_name_that_is_looked_up_ends_otherwise():
    solved = Solved(base={"a.py": KNOWN}, gold={"a.py": BROUGHT}, statement="Please add it.")
    assert list(tails(solved)) == [("do_drop_all", "drop_all")]
    ((variant, part),) = looked_up(solved)
    assert (part, variant.files["a.py"]) == ("drop_all", BROUGHT.replace("do_drop_all", "do_drop_all_here"))
    for told in ("`drop_all`", "drop all of them", "do_drop_all"):
        assert list(looked_up(Solved(base=solved.base, gold=solved.gold, statement=told))) == []
    found = [
        bool(spelled_in(part, variant.kind, {"t.py": test})) for test in ("f('drop_all')", "f('drop_all of them')")
    ]
    assert found == [True, False]


def test_a_decision_counts_where_a_test_refuses_it_that_fails_at_base():
    (choice,) = [
        one for one in choices(Solved(base={"a.py": ""}, gold={"a.py": UP}, statement="up")) if not one.spelled
    ]
    assert isinstance(choice, Choice)
    refused = [Outcome(resolved=False, failing={test: "it differs"}) for test in ("t.py::new", "t.py::old")]
    assert [is_refusal(choice, one, {}, ["t.py::new"]) for one in refused] == [True, False]
    spelled = Choice(variant=Variant(kind="another name", what="", files={}), spelled="up")
    tests = ({"t.py": "up([])"}, {"t.py": "down([])"})
    assert [is_refusal(spelled, refused[0], one, ["t.py::new"]) for one in tests] == [True, False]


def test_functions_are_named_as_code_does():
    functions, _ = changed_code(Solved(base={"a.py": ""}, gold={"a.py": UP + FOUND}))
    for statement, names in (("up at the top", []), ("`up` and at(3)", ["at", "up"]), ("in a.up it fails", ["up"])):
        assert sorted(named_in(statement, functions).values()) == names
