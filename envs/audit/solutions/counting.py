"""With which number counting begins, where a reference decides that and nobody told."""

import ast
import re
from collections.abc import Iterator

from .variants import Brought, Solved, Variant, brought

_TELLS_OF_STARTS = re.compile(r"\b(?:start\w*|begin\w*|index\w*|zero|position\w*)\b|\bfrom \d", re.I)
_NUMBERS = ("zero", "one|first", "two|second", "three|third", "four", "five", "six", "seven", "eight", "nine", "ten")


def counting(solved: Solved) -> Iterator[Variant]:
    """Every counter begun otherwise."""
    for one in brought(solved):
        yield from _begun(one, solved.statement)


def _begun(one: Brought, statement: str) -> Iterator[Variant]:
    """Numbers that stand in texts, or are given back beside what they count, begin one later, and one earlier; not
    where the statement has that number, nor where anything is computed with them."""
    if _TELLS_OF_STARTS.search(statement):
        return
    fresh = list(one.fresh())
    shown = {name for node in fresh if _is_text(node) for name in _names(node)}
    beside = {name for node in fresh if isinstance(node, ast.Tuple | ast.Yield) for name in _directly(node)}
    computed = {name for node in ast.walk(one.node) if _computes(node) for name in _directly(node)}
    for bound, number, edit in _starts(one):
        is_seen = bound in shown or (bound in beside and number == 1)
        if not is_seen or bound in computed or _says_number(statement, number):
            continue
        for other in (number + 1, number - 1):
            if other >= 0:
                what = f"{one.name} counts from {other}, not from {number}"
                yield from one.variant("another number", what, [edit(other)])


def _is_text(node: ast.AST) -> bool:
    """Whether a node makes a text of values."""
    if isinstance(node, ast.BinOp):
        return isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant) and type(node.left.value) is str
    called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    return isinstance(node, ast.JoinedStr) or called == "str" or called.endswith(".format")


def _computes(node: ast.AST) -> bool:
    return isinstance(node, ast.BinOp | ast.Compare | ast.Subscript) and not _is_text(node)


def _names(node: ast.AST) -> Iterator[str]:
    return (name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Load))


def _directly(node: ast.AST) -> Iterator[str]:
    """Names that a node uses, not those of calls, texts and other nodes within."""
    for child in ast.iter_child_nodes(node):
        yield from _names(child) if isinstance(child, ast.Name) else ()


def _starts(one: Brought) -> Iterator[tuple[str, int, "_Edit"]]:
    """(name, number, what writes another number) of each counter that the reference brings."""
    for node in ast.walk(one.node):
        if isinstance(node, ast.While):
            yield from _started_before(one, node)
        if not isinstance(node, ast.For | ast.comprehension) or not isinstance(node.iter, ast.Call):
            continue
        call, target = node.iter, node.target
        called = ast.unparse(call.func).rpartition(".")[2]
        if called == "enumerate" and isinstance(target, ast.Tuple):
            target, before = target.elts[0], call.args[:1]
        elif called == "count":
            before = []
        else:
            continue
        if call.keywords or not isinstance(target, ast.Name) or call.lineno not in one.lines:
            continue
        start = call.args[len(before)] if len(call.args) > len(before) else None
        if start is None:
            head = "".join(f"{ast.unparse(argument)}, " for argument in before)
            yield target.id, 0, _Edit(call, f"{ast.unparse(call.func)}({head}{{}})")
        elif isinstance(start, ast.Constant) and type(start.value) is int:
            yield target.id, start.value, _Edit(start, "{}")


def _started_before(one: Brought, loop: ast.While) -> Iterator[tuple[str, int, "_Edit"]]:
    """Counters of a loop that makes texts of them: ``n = 2``, ``while f"{n}" in taken: n += 1``."""
    shown = {name for node in ast.walk(loop) if _is_text(node) for name in _names(node)}
    for node in one.node.body:
        name = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        if isinstance(name, ast.Name) and name.id in shown and node.lineno in one.lines:
            value = node.value if isinstance(node, ast.Assign) else None
            steps = any(isinstance(part, ast.AugAssign) and _is_step(part, name.id) for part in loop.body)
            if steps and isinstance(value, ast.Constant) and type(value.value) is int:
                yield name.id, value.value, _Edit(value, "{}")


class _Edit:
    """Writes another number at a place."""

    def __init__(self, node: ast.expr, form: str) -> None:
        self._node, self._form = node, form

    def __call__(self, number: int) -> tuple[ast.expr, str]:
        return self._node, self._form.format(number)


def _is_step(node: ast.AugAssign, name: str) -> bool:
    is_one = isinstance(node.value, ast.Constant) and node.value.value == 1
    return is_one and isinstance(node.target, ast.Name) and node.target.id == name


def _says_number(statement: str, number: int) -> bool:
    word = _NUMBERS[number] if number < len(_NUMBERS) else "no such word"
    return re.search(rf"\b(?:{number}|{word})\b", statement, re.I) is not None
