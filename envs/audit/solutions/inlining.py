"""Right solutions: helpers that a reference brings written out where they are called, or standing elsewhere."""

import ast
import copy
from collections.abc import Iterator
from typing import cast

from ...synthesis.spans import FunctionNode, Text
from .variants import Solved, Variant, first_line_of, functions_of, lines_of, parsed, with_lines


def inlined(solved: Solved) -> Iterator[Variant]:
    """Calls of a new function of one ``return`` with its expression instead; arguments are names and constants only, so
    that how often they are evaluated does not matter."""
    for path, before, text in solved.pairs():
        tree, old = parsed(text), parsed(before)
        known = functions_of(old) if old else {}
        top = [one for one in tree.body if isinstance(one, ast.FunctionDef)] if tree else []
        for node in top:
            expression = _only_expression(node)
            if node.name in known or expression is None:
                continue
            changed = _without_calls(text, node, expression)
            if changed != text and parsed(changed) is not None:
                yield Variant(kind="inlined", what=node.name, files={path: changed})


def _only_expression(node: ast.FunctionDef) -> ast.expr | None:
    body = [one for one in node.body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
    plain = not (node.decorator_list or node.args.vararg or node.args.kwarg or node.args.kwonlyargs)
    plain = plain and not node.args.defaults and not node.args.posonlyargs
    if not plain or len(body) != 1 or not isinstance(body[0], ast.Return) or body[0].value is None:
        return None
    scoped = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.NamedExpr, ast.Await)
    return None if any(isinstance(one, scoped) for one in ast.walk(body[0].value)) else body[0].value


def _without_calls(text: str, node: ast.FunctionDef, expression: ast.expr) -> str:
    tree, source = parsed(text), Text(text)
    assert tree is not None
    parameters = [one.arg for one in node.args.args]
    calls = [one for one in ast.walk(tree) if isinstance(one, ast.Call) and _is_plain(one, node.name, len(parameters))]
    inside = [part for one in ast.walk(tree) if isinstance(one, FunctionNode) for part in ast.walk(one)]
    local = {one.id for one in inside if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    local |= {one.arg for one in inside if isinstance(one, ast.arg)}
    if local & ({one.id for one in ast.walk(expression) if isinstance(one, ast.Name)} - set(parameters)):
        return text  # a name of the helper's module may mean something else where it is called
    data = source.data
    for call in sorted(calls, key=source.start, reverse=True):
        given = dict(zip(parameters, call.args))
        made = ast.unparse(ast.fix_missing_locations(_Filled(given).visit(copy.deepcopy(expression))))
        data = data[: source.start(call)] + f"({made})".encode() + data[source.end(call) :]
    return data.decode()


def _is_plain(call: ast.Call, name: str, count: int) -> bool:
    named = isinstance(call.func, ast.Name) and call.func.id == name
    return named and not call.keywords and len(call.args) == count and all(map(_is_atom, call.args))


def _is_atom(node: ast.expr) -> bool:
    return isinstance(node, ast.Name | ast.Constant)


class _Filled(ast.NodeTransformer):
    def __init__(self, given: dict[str, ast.expr]) -> None:
        self._given = given

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return copy.deepcopy(self._given[node.id]) if node.id in self._given else node


def moved(solved: Solved) -> Iterator[Variant]:
    """New functions of a module at its end, where nothing needs them while the module is imported."""
    for path, before, text in solved.pairs():
        tree, old = parsed(text), parsed(before)
        known = functions_of(old) if old else {}
        body = tree.body if tree else []
        for node in body[:-1]:
            if not isinstance(node, ast.FunctionDef) or node.name in known or node.decorator_list:
                continue
            if _used_at_import(body, node.name):
                continue
            first, last = first_line_of(node), cast(int, node.end_lineno)
            rest = with_lines(text, first, last, "").rstrip("\n")
            result = f"{rest}\n\n\n{lines_of(text, first, last).rstrip()}\n"
            if parsed(result) is not None:
                yield Variant(kind="moved", what=node.name, files={path: result})


def _used_at_import(body: list[ast.stmt], name: str) -> bool:
    inside = {
        id(part)
        for one in body
        for function in ast.walk(one)
        if isinstance(function, FunctionNode)
        for statement in function.body
        for part in ast.walk(statement)
    }
    parts = (part for one in body for part in ast.walk(one))
    return any(isinstance(part, ast.Name) and part.id == name and id(part) not in inside for part in parts)
