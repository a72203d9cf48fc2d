"""Bugs by syntax-tree operators: what each makes, and what none may touch."""

import ast
import json
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.envs.synthesis.mutations import mutations
from verigym.envs.synthesis.operators import OPERATORS
from verigym.errors import TaskError


def bugs(body: str, operator: str, *, header: str = "def f(a, b, *c):") -> list[str]:
    """The bodies that one operator makes of a function's body."""
    source = f"{header}\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
    made = mutations(source, {operator: OPERATORS[operator]})
    return [textwrap.dedent(bug.apply(source).removeprefix(f"{header}\n")).rstrip("\n") for bug in made]


@pytest.mark.parametrize(
    ("operator", "body", "expected"),
    [
        ("arithmetic_operator", "return a + (b)", ["return a - (b)"]),
        ("arithmetic_operator", "a //= b", ["a *= b"]),
        ("arithmetic_operator", "return 'x' + a", []),
        ("arithmetic_operator", "return (a #+\n + b)", []),
        ("comparison", "return a <= b < c", ["return a < b < c", "return a <= b <= c"]),
        ("comparison", "return a is  not (b)", ["return a is (b)"]),
        ("comparison", "return a in b", ["return a not in b"]),
        ("constant", "return 5", ["return 4", "return 6"]),
        ("constant", "return 0", ["return 1"]),
        ("constant", "return 0x10", []),
        ("constant", "return a[1:]", []),
        ("flag_flipped", "return f(a, deep=True)", ["return f(a, deep=False)"]),
        ("condition_negated", "while not a:\n    b()", ["while a:\n    b()"]),
        ("condition_negated", "return [x for x in a if x or b]", ["return [x for x in a if not (x or b)]"]),
        ("condition_negated", "while True:\n    b()", []),
        ("boolean_operator", "return a and b and c", ["return a and b or c", "return a or b and c"]),
        ("statement_removed", "a = 1  # one\nreturn a", ["return a"]),
        ("statement_removed", "x = 1\nreturn x", []),
        ("statement_removed", "for x in a:\n    b(x)", ["for x in a:\n    pass"]),
        ("statement_removed", "a = 1; b = 2", []),
        ("branch_removed", "if a:\n    b()\nelif b:\n    c()\nelse:\n    a()",
         ["if a:\n    b()\nelif b:\n    c()", "if a:\n    b()\nelse:\n    a()"]),
        ("branch_removed", "if a:\n    b()\nreturn a", ["return a"]),
        ("arguments_swapped", "return g(a, b.x, k=1)", ["return g(b.x, a, k=1)"]),
        ("arguments_swapped", "return g(a, *c), g(a, a), isinstance(a, b)", []),
        ("slice_bound", "return a[1:b]", ["return a[1:b - 1]", "return a[2:b]"]),
        ("slice_bound", "return a[:-1]", ["return a[:-2]"]),
        ("slice_bound", "return range(2, len(a))", ["return range(2, len(a) - 1)", "return range(3, len(a))"]),
        ("return_value_dropped", "return (\n    a\n)", ["return"]),
        ("return_value_dropped", "return None", []),
    ],
)  # fmt: skip
def test_what_an_operator_makes(operator, body, expected):
    assert sorted(bugs(body, operator)) == sorted(expected)


def test_there_are_at_least_eight_operators():
    assert len(OPERATORS) >= 8


def test_only_code_inside_functions_is_touched():
    source = textwrap.dedent('''\
        LIMIT = 1 + 2

        class A:
            x = 3

            @register(1, 2)
            def f(self, n: "a[1:2]" = None) -> g(3, 4):
                """Not 1 + 1 < 2."""
                y: g(5, 6) = None
                raise ValueError(f"{n + 1}", n + 2)
        ''')
    assert [(bug.operator, bug.lineno) for bug in mutations(source)] == [("statement_removed", 10)]  # the raise itself
    inside = mutations(source.replace("y: g(5, 6) = None", "return n + 1"))
    assert {(bug.qualname, bug.lineno) for bug in inside} == {("A.f", 9), ("A.f", 10)}


def test_names_and_places():
    source = (
        "class A:\n    def f(self):\n        def g(x):\n            return (x +\n                1)\n        return g\n"
    )
    plus = next(bug for bug in mutations(source) if bug.operator == "arithmetic_operator")
    assert (plus.qualname, plus.function_lineno, plus.lineno, plus.end_lineno) == ("A.f.g", 3, 4, 4)
    dropped = next(b for b in mutations(source) if b.operator == "return_value_dropped" and b.qualname == "A.f.g")
    assert (dropped.lineno, dropped.end_lineno) == (4, 5)


def test_source_that_does_not_parse():
    with pytest.raises(TaskError, match="does not parse"):
        mutations("def f(:\n")


@pytest.mark.parametrize("module", [textwrap, json.decoder])
def test_every_bug_of_real_code(module):
    """Each parses, has another tree, and changes no byte outside its lines."""
    with open(module.__file__, encoding="utf-8") as file:
        source = file.read()
    made = mutations(source)
    assert len({bug.operator for bug in made}) >= 8
    tree = ast.dump(ast.parse(source))
    for bug in made[:: len(made) // 25]:
        check(source, bug, tree)


infixes = st.sampled_from(["+", "%", " and ", " < ", " is not ", "**"])
names = st.sampled_from(["a", "b", "größe"])
expressions = st.recursive(
    names | st.integers(0, 9).map(str) | st.sampled_from(["True", "'é\t'", 'f"{a + 1}"', "None"]),
    lambda inner: st.one_of(
        st.tuples(inner, infixes, inner).map("({0[0]}{0[1]}{0[2]})".format),
        st.lists(inner, max_size=3).map(lambda parts: f"g({', '.join(parts)})"),
        st.tuples(names, inner, inner).map("{0[0]}[{0[1]}:{0[2]}]".format),
        inner.map("(not {})".format),
    ),
    max_leaves=6,
)  # fmt: skip
statements = st.one_of(
    expressions.map("a = {}".format),
    expressions.map("b += {}  # why".format),
    expressions.map("return {}".format),
    expressions.map("g({})".format),
    st.tuples(expressions, expressions).map("if {0[0]}:\n    a = {0[1]}\nelse:\n    break_even()".format),
    st.tuples(expressions, expressions).map("while {0[0]}:\n    g({0[1]})\n    continue".format),
)


@settings(max_examples=60)
@given(st.lists(statements, min_size=1, max_size=4), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["    ", "\t"]))
def test_every_bug_of_any_code(body, line_end, indent):
    lines = textwrap.indent("\n".join(body).replace("    ", indent), indent)
    source = f"# größe\nclass A:\n{indent}x = 1\n\ndef f(a, b):\n{lines}\n".replace("\n", line_end)
    tree = ast.dump(ast.parse(source))
    for bug in mutations(source):
        check(source, bug, tree)


def check(source, bug, tree):
    changed = bug.apply(source)
    assert ast.dump(ast.parse(changed)) != tree
    old, new = source.splitlines(keepends=True), changed.splitlines(keepends=True)
    above, below = bug.lineno - 1, len(old) - bug.end_lineno
    assert new[:above] == old[:above]
    assert new[len(new) - below :] == old[len(old) - below :]
    assert 1 <= bug.function_lineno <= bug.lineno <= bug.end_lineno <= len(old)
