"""Operands of a test's comparisons, and what stands in their place in a twin: values that no right answer passes with.

What equals everything, is greater than everything, contains everything, or reads in the running test what it expects,
passes then too, and gives itself away. Part of the program that runs in the sandbox, and used by the host: standard
library only, Python 3.8 or later.
"""

import ast
from typing import Any

from .twin_means import dotted, leaves_early

OLD = "_verigym_old"
"""In the text of an operand: the operand that it replaces."""
EQUAL = ("assertEqual", "assertEquals", "assertListEqual", "assertTupleEqual", "assertSetEqual", "assertDictEqual")
EQUAL += ("assertSequenceEqual", "assertMultiLineEqual", "assertCountEqual")
ORDERED = {"assertGreater": ast.Gt, "assertGreaterEqual": ast.GtE, "assertLess": ast.Lt, "assertLessEqual": ast.LtE}
_BEYOND = {ast.Gt: "1e999", ast.GtE: "(1e999 - 1e999)", ast.Lt: "-1e999", ast.LtE: "(1e999 - 1e999)"}
"""Infinity is at least infinity, by right; nothing is at least, or at most, what is no number."""
_TURNED = {ast.Gt: ast.Lt, ast.Lt: ast.Gt, ast.GtE: ast.LtE, ast.LtE: ast.GtE}
_ANOTHER = (
    "(lambda v: not v if type(v) is bool"
    " else (v + {step} if v + {step} != v else type(v)({step})) if type(v) in (int, float, complex)"
    " else v[:-1] + ('z' if v[-1:] in 'qQ' and v else 'q') if type(v) is str"
    " else v[:-1] + (b'z' if v[-1:] in b'qQ' and v else b'q') if type(v) is bytes"
    " else v + [{step}] if type(v) is list"
    " else v + ({step},) if type(v) is tuple"
    " else {{**v, {word!r}: {step}}} if type(v) is dict"
    " else v | {{{word!r}}} if type(v) in (set, frozenset)"
    " else type('', (), {{}})())({old})"
)


def operands_of(function):
    """What of a test's comparisons can be replaced: [(node, its text in the twin of a number)].

    Of statements that run whenever the test passes: the side of an equality that is a literal, or comes from the
    test's parameters where the other does not; the number that bounds another value; the text that is looked for.
    """
    if leaves_early(function):
        return []
    literals, others = [], []
    names = {one.arg for one in (*function.args.args, *function.args.kwonlyargs)} - {"self", "cls"}
    for left, relation, right in (found for statement in function.body for found in _comparisons(statement)):
        if relation is ast.Eq:
            plain = [side for side in (left, right) if is_literal(side)]
            if len(plain) == 1:
                literals.append((plain[0], near))
            elif not plain:
                given = [side for side in (left, right) if _is_given(side, names)]
                if len(given) == 1 and not _is_matcher(left) and not _is_matcher(right):
                    others.append((given[0], another))
        elif relation in _BEYOND and is_number(left) != is_number(right):
            turned = relation if is_number(right) else _TURNED[relation]
            literals.append((right if is_number(right) else left, _bound(_BEYOND[turned])))
        elif relation is ast.In and isinstance(getattr(left, "value", None), (str, bytes)):
            literals.append((left, unseen))
    return literals + others


def _comparisons(statement):
    """(left, relation, right) of the comparisons that a statement wants to hold."""
    if isinstance(statement, ast.Assert):
        tests = [statement.test]
        while tests:
            test = tests.pop(0)
            if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And):
                tests = [*test.values, *tests]
            elif isinstance(test, ast.Compare) and len(test.ops) == 1:
                yield test.left, type(test.ops[0]), test.comparators[0]
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        call = statement.value
        name = dotted(call.func).partition("self.")[2]
        if len(call.args) >= 2 and not any(isinstance(one, ast.Starred) for one in call.args[:2]):
            relation = ast.Eq if name in EQUAL else ast.In if name == "assertIn" else ORDERED.get(name)
            if relation is not None:
                yield call.args[0], relation, call.args[1]


def is_literal(node):
    if isinstance(node, (ast.List, ast.Tuple, ast.Dict, ast.Set)):
        children = list(ast.iter_child_nodes(node))
        return all(isinstance(child, ast.expr_context) or is_literal(child) for child in children)
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str, bytes))


def is_number(node):
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        node = node.operand
    return isinstance(node, ast.Constant) and type(node.value) in (int, float)


def _is_given(node, names):
    """Whether an expression is made of parameters alone, with nothing called."""
    found = [one for one in ast.walk(node) if isinstance(one, ast.Name)]
    plain = not any(isinstance(one, (ast.Call, ast.Await, ast.NamedExpr, ast.Lambda)) for one in ast.walk(node))
    return plain and bool(found) and all(one.id in names for one in found)


def _is_matcher(node):
    """Whether a side may equal many values by right: an object made there (``IsInt()``), ``approx``, ``ANY``."""
    called = dotted(node.func if isinstance(node, ast.Call) else node).rpartition(".")[2]
    return called[:1].isupper() or called in ("approx", "raises")


def near(node, number):
    """Another literal of a literal's own type and size, and close to it, as text: what looks at types, sizes and
    ranges sees no difference."""
    return repr(_near(ast.literal_eval(node), number))


def _near(value: Any, number: int) -> Any:
    step = 1 if number % 2 else -1
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        moved = value + step
        return moved if moved != value and moved == moved and abs(moved) != float("inf") else float(step)
    if isinstance(value, str):
        return value[:-1] + ("q" if value[-1:].casefold() != "q" else "z")
    if isinstance(value, bytes):
        return value[:-1] + (b"q" if value[-1:].lower() != b"q" else b"z")
    if isinstance(value, dict):
        if not value:
            return {number: number}
        *_, last = value
        return {**value, last: _near(value[last], number)}
    if isinstance(value, set):
        return value | {number + 10**6}
    if isinstance(value, (list, tuple)):
        return type(value)([*value[:-1], _near(value[-1], number) if value else number])
    return number  # None, and the like


def unseen(node, number):
    """Another text of a text's own type that no other value holds, as text."""
    word = "%x" % (7919 * number + 10**9)
    value = ast.literal_eval(node)
    return repr(value + (word if isinstance(value, str) else word.encode()))


def another(node, number):
    """An expression whose value differs from a node's, and is of its type where that is a plain one, as text."""
    step, word = 1 if number % 2 else -1, "%x" % (7919 * number + 10**9)
    return _ANOTHER.format(step=step, word=word, old=OLD)


def _bound(text):
    return lambda node, number: text
