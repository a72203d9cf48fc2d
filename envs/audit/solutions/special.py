"""Wrong solutions that are right for one input of the tests alone."""

import ast
import copy
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from ...synthesis.spans import FunctionNode
from .variants import Files, Solved, Variant, changed_functions, first_line_of, functions_of, parsed, with_lines

MOST_INPUTS = 3
"""Inputs of one function that are tried."""
BEFORE = "_as_it_was_"


def special_cases(solved: Solved, tests: Files) -> Iterator[Variant]:
    """The reference for one call that the tests make with plain arguments; for any other the function as it was, and a
    new function gives nothing. Tests that ask for two things refuse it."""
    for path, before, after in solved.pairs():
        old = parsed(before)
        known = functions_of(old) if old else {}
        for dotted, node in changed_functions(before, after).items():
            if node.decorator_list or isinstance(node, ast.AsyncFunctionDef) or dotted.count(".") > 1:
                continue
            for given in _inputs(node, tests)[:MOST_INPUTS]:
                text = _guarded(after, node, known.get(dotted), given)
                if text is not None and parsed(text) is not None:
                    shown = ", ".join(f"{name}={value!r}" for name, value in given.items())
                    yield Variant(kind="special case", what=f"{dotted}({shown[:80]}) alone", files={path: text})


def _inputs(node: FunctionNode, tests: Files) -> list[dict[str, Any]]:
    """Parameter -> value, of each call of a function's name with literals alone, each once, in their order."""
    names = [one.arg for one in (*node.args.posonlyargs, *node.args.args)]
    names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    found: list[dict[str, Any]] = []
    for text in tests.values():
        tree = parsed(text or "")
        for call in ast.walk(tree) if tree else ():
            if isinstance(call, ast.Call) and _name_of(call) == node.name and len(call.args) <= len(names):
                try:
                    given = dict(zip(names, map(ast.literal_eval, call.args)))
                    given |= {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg in names}
                except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                    continue
                if given and given not in found:
                    found.append(given)
    return found


def _name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _guarded(after: str, node: FunctionNode, old: FunctionNode | None, given: Mapping[str, Any]) -> str | None:
    """A source whose function goes its new way for one input only."""
    yields = any(isinstance(one, ast.Yield | ast.YieldFrom) for one in ast.walk(node))
    every = node.args
    if (yields and old is not None) or every.vararg or every.kwarg or every.kwonlyargs or node.name.startswith("__"):
        return None
    names = [one.arg for one in (*every.posonlyargs, *every.args)]
    is_method = names[:1] == ["self"]
    differs = " or ".join(f"{name} != {value!r}" for name, value in given.items())
    made, otherwise = "", "None"
    if old is not None:
        passed = [one.arg for one in (*old.args.posonlyargs, *old.args.args)]
        if not set(passed) <= set(names) or old.args.vararg or old.args.kwarg or old.args.kwonlyargs:
            return None
        owner = "self." if is_method else ""
        otherwise = f"{owner}{BEFORE}{node.name}({', '.join(passed[1:] if is_method else passed)})"
        was = copy.deepcopy(old)
        was.name = f"{BEFORE}{node.name}"
        made = textwrap.indent(ast.unparse(was), " " * node.col_offset) + "\n\n"
    changed = copy.deepcopy(node)
    guard = ast.If(
        test=ast.parse(differs, mode="eval").body, body=[ast.Return(ast.parse(otherwise, mode="eval").body)], orelse=[]
    )
    changed.body.insert(0, guard)
    assert node.end_lineno is not None
    part = textwrap.indent(ast.unparse(ast.fix_missing_locations(changed)), " " * node.col_offset) + "\n"
    return with_lines(after, first_line_of(node), node.end_lineno, made + part)
