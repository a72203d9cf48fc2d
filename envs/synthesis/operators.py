"""Kinds of bugs: each operator looks at one node of a syntax tree and names spans of the text to replace."""

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from .spans import Edit, FunctionNode, Text


@dataclass(slots=True)
class Site:
    """A function being visited: its node, name, and the line where each of its names is first bound."""

    node: FunctionNode
    qualname: str
    bound: dict[str, int] = field(default_factory=dict)


Operator = Callable[[ast.AST, Text, Site], Iterator[Edit]]

ARITHMETIC: Mapping[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "|"),
}

COMPARISONS: Mapping[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: (r"<", "<="),
    ast.LtE: (r"<=", "<"),
    ast.Gt: (r">", ">="),
    ast.GtE: (r">=", ">"),
    ast.Eq: (r"==", "!="),
    ast.NotEq: (r"!=", "=="),
    ast.Is: (r"\bis\b", "is not"),
    ast.IsNot: (r"\bis\s+not\b", "is"),
    ast.In: (r"\bin\b", "not in"),
    ast.NotIn: (r"\bnot\s+in\b", "in"),
}

TYPE_CHECKS = frozenset({"isinstance", "issubclass", "hasattr", "getattr", "setattr", "delattr"})
"""Calls whose swapped arguments fail at once, whatever is computed: no bug worth finding."""


def arithmetic_operator(node: ast.AST, text: Text, function: Site) -> Iterator[Edit]:
    """``a + b`` becomes ``a - b``, also in ``a += b``; not where an operand is plainly text or a list."""
    if isinstance(node, ast.BinOp):
        left, right = node.left, node.right
    elif isinstance(node, ast.AugAssign):
        left, right = node.target, node.value
    else:
        return
    if type(node.op) not in ARITHMETIC or any(_is_sequence(operand) for operand in (left, right)):
        return
    token, other = ARITHMETIC[type(node.op)]
    if span := text.find(re.escape(token), left, right):
        yield Edit(*span, other)


def comparison(node: ast.AST, text: Text, function: Site) -> Iterator[Edit]:
    """``<`` and ``<=`` trade places, ``==`` and ``!=``, ``in`` and ``not in``, ``is`` and ``is not``."""
    if not isinstance(node, ast.Compare):
        return
    operands = [node.left, *node.comparators]
    for left, op, right in zip(operands, node.ops, node.comparators):
        pattern, other = COMPARISONS[type(op)]
        if span := text.find(pattern, left, right):
            yield Edit(*span, other)


def constant(node: ast.AST, text: Text, function: Site) -> Iterator[Edit]:
    """A decimal integer is one too large or one too small."""
    if isinstance(node, ast.Constant) and type(node.value) is int and text.of(node).isdecimal():
        for value in (node.value + 1, node.value - 1):
            if value >= 0:
                yield Edit(text.start(node), text.end(node), str(value))


def flag_flipped(node: ast.AST, text: Text, function: Site) -> Iterator[Edit]:
    """``True`` becomes ``False`` and the other way round."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield Edit(text.start(node), text.end(node), str(not node.value))


def condition_negated(node: ast.AST, text: Text, function: Site) -> Iterator[Edit]:
    """The condition of an ``if``, ``while``, conditional expression or comprehension is turned round."""
    if isinstance(node, ast.comprehension):
        tests = node.ifs
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        tests = [node.test]
    else:
        return
    for test in tests:
        old = text.of(test)
        if isinstance(test, ast.Constant):
            continue  # "while True" turned round is dead code, not a bug
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            new = old.removeprefix("not").strip()
        elif isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript | ast.Compare):
            new = f"not {old}"
        else:
            new = f"not ({old})"
        yield Edit(text.start(test), text.end(test), new)


def boolean_operator(node: ast.AST, text: Text, function: Site) -> Iterator[Edit]:
    """``and`` becomes ``or`` and the other way round."""
    if isinstance(node, ast.BoolOp):
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            if span := text.find(rf"\b{old}\b", left, right):
                yield Edit(*span, new)


def statement_removed(node: ast.AST, text: Text, function: Site) -> Iterator[Edit]:
    """A call, an assignment that is not the name's first, a ``raise``, ``break`` or ``continue`` goes away."""
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if not isinstance(block, list) or isinstance(node, ast.ClassDef):
            continue
        alone = len(block) == 1
        if alone and (name == "orelse" or (isinstance(node, ast.If) and not node.orelse)):
            continue  # the same bug as branch_removed
        for statement in block:
            if not _is_removable(statement, function):
                continue
            if alone:
                yield Edit(text.start(statement), text.end(statement), "pass")
            elif span := text.whole_lines(statement):
                yield Edit(*span, "")


def branch_removed(node: ast.AST, text: Text, function: Site) -> Iterator[Edit]:
    """An ``else`` or ``elif`` with its body goes away, or a whole ``if`` that has neither."""
    if not isinstance(node, ast.If):
        return
    assert node.end_lineno is not None
    if not node.orelse:
        # An elif without an else is removed as its parent's branch, below.
        span = text.whole_lines(node) if text.of(node).startswith("if") else None
        if span and not _is_only_statement(node, function.node):
            yield Edit(*span, "")
        return
    last, first = node.body[-1], node.orelse[0]
    assert last.end_lineno is not None
    if isinstance(first, ast.If) and text.of(first).startswith("elif"):
        end_lineno = first.body[-1].end_lineno
        assert end_lineno is not None
        yield Edit(*text.lines(first.lineno, end_lineno), "")
        return
    for lineno in range(last.end_lineno + 1, first.lineno + 1):
        start, stop = text.lines(lineno, lineno)
        if re.match(rb"[ \t]*else\s*:", text.data[start:stop]):
            yield Edit(start, text.lines(node.end_lineno, node.end_lineno)[1], "")
            return


def arguments_swapped(node: ast.AST, text: Text, function: Site) -> Iterator[Edit]:
    """Two neighbouring positional arguments of a call trade places."""
    if not isinstance(node, ast.Call) or (isinstance(node.func, ast.Name) and node.func.id in TYPE_CHECKS):
        return
    for first, second in zip(node.args, node.args[1:]):
        if isinstance(first, ast.Starred) or isinstance(second, ast.Starred) or text.of(first) == text.of(second):
            continue
        gap = text.data[text.end(first) : text.start(second)].decode()
        yield Edit(text.start(first), text.end(second), text.of(second) + gap + text.of(first))


def slice_bound(node: ast.AST, text: Text, function: Site) -> Iterator[Edit]:
    """A bound of a slice or of ``range`` is off by one."""
    bounds: list[tuple[ast.expr | None, int]] = []
    if isinstance(node, ast.Slice):
        bounds = [(node.lower, 1), (node.upper, -1)]
    elif is_range(node) and isinstance(node, ast.Call) and not any(isinstance(a, ast.Starred) for a in node.args):
        bounds = [(node.args[0], -1)] if len(node.args) == 1 else [(node.args[0], 1), (node.args[1], -1)]
    for bound, step in bounds:
        if bound is not None and (new := _moved(bound, step, text)) is not None:
            yield Edit(text.start(bound), text.end(bound), new)


def return_value_dropped(node: ast.AST, text: Text, function: Site) -> Iterator[Edit]:
    """``return value`` becomes ``return``."""
    if isinstance(node, ast.Return) and node.value is not None:
        if isinstance(node.value, ast.Constant) and not node.value.value:
            return  # callers that test for truth would see no difference
        yield Edit(text.start(node), text.end(node), "return")


OPERATORS: Mapping[str, Operator] = {
    operator.__name__: operator
    for operator in (
        arithmetic_operator,
        comparison,
        constant,
        flag_flipped,
        condition_negated,
        boolean_operator,
        statement_removed,
        branch_removed,
        arguments_swapped,
        slice_bound,
        return_value_dropped,
    )
}


def _is_removable(statement: ast.stmt, function: Site) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Call | ast.Await | ast.Yield | ast.YieldFrom)
    if isinstance(statement, ast.Assign):
        targets = statement.targets
        return all(
            isinstance(target, ast.Attribute | ast.Subscript)
            or (isinstance(target, ast.Name) and function.bound.get(target.id, statement.lineno) < statement.lineno)
            for target in targets
        )
    return isinstance(statement, ast.AugAssign | ast.Delete | ast.Raise | ast.Break | ast.Continue)


def _is_only_statement(statement: ast.stmt, function: FunctionNode) -> bool:
    """Whether a statement stands alone in its block, so that removing its lines would not parse."""
    for node in ast.walk(function):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list) and statement in block:
                return len(block) == 1
    return False


def _is_sequence(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str | bytes)
    return isinstance(node, ast.JoinedStr | ast.List | ast.ListComp | ast.Tuple | ast.Dict | ast.Set)


def is_range(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range" and bool(node.args)
    )


def _moved(bound: ast.expr, step: int, text: Text) -> str | None:
    """The text of a bound moved by one; None where that would read oddly."""
    old = text.of(bound)
    if isinstance(bound, ast.Constant):
        if type(bound.value) is not int or not old.isdecimal():
            return None
        return str(bound.value + (step if bound.value + step >= 0 else 1))
    if isinstance(bound, ast.UnaryOp) and isinstance(bound.op, ast.USub) and isinstance(bound.operand, ast.Constant):
        return f"-{bound.operand.value + 1}" if type(bound.operand.value) is int else None
    sign = "+" if step > 0 else "-"
    if isinstance(bound, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
        return f"{old} {sign} 1"
    return None  # in arithmetic, arithmetic_operator and constant have their own bugs
