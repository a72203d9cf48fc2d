"""A test's body otherwise, its literals apart: what it passes, and which of its steps it takes."""

import ast
import builtins
import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from .noting import called, expected_in
from .values import CALLABLES

Way = Callable[[], tuple[str, ast.FunctionDef]]
"""Gives what was done, in a few words, and the test with it; made when it is wanted, as copies of trees take long."""

_WRAPPED = ("iter({})", "list({})", "tuple({})", "None", "{0} + {0}", "{}[::-1]", "{}[:1]", "[{}]", "str({})")
_WRAPPED_CALLABLES = (*CALLABLES[:3], "__import__('functools').partial({})")


def displays(node: ast.FunctionDef) -> Iterator[Way]:
    """A list, tuple, set or mapping that is written out: shorter, longer, turned round."""
    # A list of parameters of another shape: the whole file is not collected.
    spared = expected_in(node) | {id(part) for one in node.decorator_list for part in ast.walk(one)}
    for position, one in enumerate(ast.walk(node)):
        if id(one) in spared:
            continue
        if isinstance(one, ast.List | ast.Tuple | ast.Set) and not isinstance(getattr(one, "ctx", None), ast.Store):
            elements = list(one.elts)
            for other in (elements[1:], elements[:-1], elements[::-1], [*elements, *elements[-1:]], []):
                if other != elements and (other or isinstance(one, ast.List)):
                    yield partial(_with, node, position, elts=other)
        elif isinstance(one, ast.Dict) and one.keys:
            for keys, values in (
                (one.keys[1:], one.values[1:]),
                (one.keys[:-1], one.values[:-1]),
                (one.keys[::-1], one.values[::-1]),
            ):
                yield partial(_with, node, position, keys=keys, values=values)


def arguments(node: ast.FunctionDef) -> Iterator[Way]:
    """What a call is given, as another kind of thing: an iterator of it, a part of it, more of it, nothing."""
    for position, one in enumerate(ast.walk(node)):
        if not isinstance(one, ast.Call) or hasattr(builtins, called(one)) or _is_check(called(one)):
            continue
        for place, value in enumerate([*one.args, *(keyword.value for keyword in one.keywords)]):
            if not isinstance(value, ast.Starred):
                named = isinstance(value, ast.Name | ast.Lambda | ast.Attribute)
                for wrap in (*_WRAPPED, *(_WRAPPED_CALLABLES if named else ())):
                    yield partial(_given, node, position, place, wrap)


def steps(node: ast.FunctionDef) -> Iterator[Way]:
    """A step left out, taken twice, or taken before the one that it follows."""
    for position, one in enumerate(ast.walk(node)):
        block = getattr(one, "body", None)
        if not isinstance(block, list) or isinstance(one, ast.ClassDef):
            continue
        for number, step in enumerate(block):
            if not isinstance(step, ast.Expr | ast.Assign | ast.AugAssign | ast.Assert | ast.Delete):
                continue
            if isinstance(step, ast.Expr) and isinstance(step.value, ast.Constant):
                continue
            yield partial(_stepped, node, position, "twice", step, [*block[: number + 1], *block[number:]])
            if len(block) > 1:
                rest = [*block[:number], *block[number + 1 :]]
                yield partial(_stepped, node, position, "without", step, rest)
            if number and not isinstance(block[number - 1], ast.FunctionDef | ast.Import | ast.ImportFrom):
                turned = [*block[: number - 1], step, block[number - 1], *block[number + 1 :]]
                yield partial(_stepped, node, position, "earlier", step, turned)


WAYS: tuple[Callable[[ast.FunctionDef], Iterator[Way]], ...] = (displays, arguments, steps)


def _is_check(name: str) -> bool:
    return name.startswith("assert") or name in ("raises", "warns", "approx", "parametrize", "fixture", "skipif")


def _with(node: ast.FunctionDef, position: int, **fields: Sequence[ast.AST | None]) -> tuple[str, ast.FunctionDef]:
    """A test with other fields of one of its nodes."""
    changed = copy.deepcopy(node)
    found = list(ast.walk(changed))[position]
    before = ast.unparse(found)
    for name, value in fields.items():
        setattr(found, name, copy.deepcopy(value))
    return f"{before[:50]} -> {ast.unparse(found)[:60]}", changed


def _given(node: ast.FunctionDef, position: int, place: int, wrap: str) -> tuple[str, ast.FunctionDef]:
    changed = copy.deepcopy(node)
    call = list(ast.walk(changed))[position]
    assert isinstance(call, ast.Call)
    value = call.args[place] if place < len(call.args) else call.keywords[place - len(call.args)].value
    source = wrap.replace("{0}", "({})").replace("{}", ast.unparse(value))
    made = ast.parse(source, mode="eval").body
    if place < len(call.args):
        call.args[place] = made
    else:
        call.keywords[place - len(call.args)].value = made
    return f"{called(call)}(... {source} ...)"[:120], changed


def _stepped(
    node: ast.FunctionDef, position: int, what: str, step: ast.stmt, block: Sequence[ast.stmt]
) -> tuple[str, ast.FunctionDef]:
    _, changed = _with(node, position, body=block)
    return f"{what}: {ast.unparse(step)[:80]}", changed
