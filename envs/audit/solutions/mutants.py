"""Wrong solutions: the reference with a part of it missing or spoilt."""

import ast
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from types import MappingProxyType
from typing import TypeGuard

from ...synthesis.mutations import mutations
from ...synthesis.operators import OPERATORS
from ...synthesis.spans import FunctionNode, Text
from .special import special_cases
from .variants import (
    Files,
    Solved,
    Variant,
    begun_with,
    changed_blocks,
    changed_functions,
    changed_lines,
    first_line_of,
    functions_of,
    is_new,
    lines_of,
    parsed,
    returns_of,
    with_lines,
)

_OTHERWISE = {
    "more": "lambda v: v + 1 if type(v) in (int, float) else v + v[-1:] if type(v) in (str, list, tuple) else v",
    "less": "lambda v: v - 1 if type(v) in (int, float) else v[:-1] if type(v) in (str, list, tuple) "
    "else type(v)(list(v)[1:]) if type(v) is set else dict(list(v.items())[1:]) if type(v) is dict else v",
}

_EMPTIABLE = "(int, float, str, bool, list, tuple, dict, set)"


def mutants(solved: Solved, *, most: int, seed: str, tests: Files = MappingProxyType({})) -> list[Variant]:
    """Wrong solutions of a task, kinds in turn, none twice, and none that is the reference or nothing.

    Args:
        most: how many.
        tests: the hidden tests, for solutions that are right for one of their inputs alone.
        seed: of the order in which operators' mutants are taken; the same seed, the same mutants.
    """
    kinds = (list(_hunks(solved)), list(_functions(solved)), list(special_cases(solved, tests)), *_spoilt(solved, seed))
    found: list[Variant] = []
    seen: set[tuple[tuple[str, str | None], ...]] = set()
    for round_of_kinds in zip_longest(*kinds):
        for variant in round_of_kinds:
            if variant is None or (key := tuple(sorted(variant.files.items()))) in seen:
                continue
            seen.add(key)
            if is_new(variant.files, solved.gold, solved.base):
                found.append(variant)
    return found[:most]


def _hunks(solved: Solved) -> Iterator[Variant]:
    """Each place that the reference changes, as it was before."""
    for path, before, after in solved.pairs():
        blocks = changed_blocks(before, after)
        for first, stop, at, end in blocks:
            old = lines_of(before, first + 1, stop)
            text = with_lines(after, at + 1, end, old)
            if parsed(text) is not None:
                yield Variant(kind="hunk left out", what=f"{path}:{at + 1} as it was", files={path: text})
    whole = [path for path, _, _ in solved.pairs()]
    for path in whole if len(whole) > 1 else ():
        yield Variant(kind="file left out", what=f"{path} as it was", files={path: solved.base.get(path)})


def _functions(solved: Solved) -> Iterator[Variant]:
    """Each changed function as it was before; a new one returns nothing."""
    for path, before, after in solved.pairs():
        tree = parsed(before)
        old = functions_of(tree) if tree else {}
        for name, node in changed_functions(before, after).items():
            assert node.end_lineno is not None
            if name in old:
                was = old[name]
                assert was.end_lineno is not None
                part = lines_of(before, first_line_of(was), was.end_lineno)
                what = f"{name} as it was"
            else:
                part, what = _emptied(after, node), f"{name} returns nothing"
            text = with_lines(after, first_line_of(node), node.end_lineno, part)
            if parsed(text) is not None:
                yield Variant(kind="function reverted", what=what, files={path: text})


def _emptied(text: str, node: FunctionNode) -> str:
    first, last = node.body[0].lineno, node.end_lineno
    assert last is not None
    head = lines_of(text, first_line_of(node), first - 1)
    return f"{head}{' ' * node.body[0].col_offset}return None\n" if head else lines_of(text, node.lineno, last)


def _spoilt(solved: Solved, seed: str) -> list[list[Variant]]:
    """What operators make of the lines that the reference brings, a list for each operator."""
    found: Mapping[str, list[Variant]] = defaultdict(list)
    for path, before, after in solved.pairs():
        lines = changed_lines(before, after)
        for mutation in mutations(after, OPERATORS):
            if not lines.isdisjoint(range(mutation.lineno, mutation.end_lineno + 1)):
                what = f"{mutation.qualname}, line {mutation.lineno}"
                text = mutation.apply(after)
                found[mutation.operator].append(Variant(kind=mutation.operator, what=what, files={path: text}))
        others = (
            _unlooked(path, before, after),
            _unequal_constants(path, after, lines),
            _unfiltered(path, after, lines),
            _unwrapped(path, after, lines),
            _other_values(path, before, after),
        )
        for variant in (one for made in others for one in made):
            found[variant.kind].append(variant)
    rng = random.Random(seed)
    for variants in found.values():
        rng.shuffle(variants)
    return list(found.values())


def _unequal_constants(path: str, after: str, lines: frozenset[int]) -> Iterator[Variant]:
    """String constants that the reference computes with, each with another text; documentation and messages are not."""
    tree = parsed(after)
    if tree is None:
        return
    spared = {id(child) for node in ast.walk(tree) if _is_spared(node) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in spared or not isinstance(node, ast.Constant) or type(node.value) is not str or not node.value:
            continue
        if node.lineno in lines and node.end_lineno == node.lineno:
            line = after.splitlines(keepends=True)[node.lineno - 1].encode()
            start, end = node.col_offset, node.end_col_offset
            assert end is not None
            changed = line[:start] + repr(node.value + "x").encode() + line[end:]
            text = with_lines(after, node.lineno, node.lineno, changed.decode())
            if parsed(text) is not None:
                what = f"{node.value[:40]!r} otherwise, line {node.lineno}"
                yield Variant(kind="string constant", what=what, files={path: text})


def _unfiltered(path: str, after: str, lines: frozenset[int]) -> Iterator[Variant]:
    """Comprehensions that the reference brings, each without one of its conditions."""
    tree = parsed(after)
    source = Text(after)
    for node in ast.walk(tree) if tree else ():
        for generator in getattr(node, "generators", ()):
            for condition in generator.ifs:
                if condition.lineno in lines:
                    data = source.data
                    text = (data[: source.start(condition)] + b"True" + data[source.end(condition) :]).decode()
                    what = f"line {condition.lineno} without its condition"
                    yield Variant(kind="condition dropped", what=what, files={path: text})


def _unwrapped(path: str, after: str, lines: frozenset[int]) -> Iterator[Variant]:
    """Calls with one argument that the reference brings, each without its function: ``sorted(found)`` is ``found``."""
    tree = parsed(after)
    source = Text(after)
    spared = {id(child) for node in ast.walk(tree) if _is_spared(node) for child in ast.walk(node)} if tree else set()
    for node in ast.walk(tree) if tree else ():
        if not isinstance(node, ast.Call) or len(node.args) != 1 or node.keywords or id(node) in spared:
            continue
        if node.lineno in lines and not isinstance(node.args[0], ast.Starred | ast.GeneratorExp):
            data, argument = source.data, node.args[0]
            inner = data[source.start(argument) : source.end(argument)]
            text = (data[: source.start(node)] + b"(" + inner + b")" + data[source.end(node) :]).decode()
            if parsed(text) is not None:
                what = f"line {node.lineno} without {ast.unparse(node.func)[:40]}()"
                yield Variant(kind="call left out", what=what, files={path: text})


def _other_values(path: str, before: str, after: str) -> Iterator[Variant]:
    """Each changed function with other results of the same type, more and less, which tests that look at types alone
    let pass."""
    for name, node in changed_functions(before, after).items():
        returns = [one.value for one in returns_of(node)]
        source = Text(after)
        for what, otherwise in _OTHERWISE.items():
            data = source.data
            for value in sorted(filter(_may_vary, returns), key=source.start, reverse=True):
                start, end = source.start(value), source.end(value)
                data = data[:start] + f"({otherwise})((".encode() + data[start:end] + b"))" + data[end:]
            if data != source.data and parsed(text := data.decode()) is not None:
                yield Variant(kind="another value", what=f"{name} gives {what}", files={path: text})


def _unlooked(path: str, before: str, after: str) -> Iterator[Variant]:
    """Each changed function with one of its parameters empty or zero, whatever it was given."""
    for name, node in changed_functions(before, after).items():
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        for one in (arg.arg for arg in arguments if arg.arg not in ("self", "cls")):
            text = begun_with(after, node, f"{one} = type({one})() if type({one}) in {_EMPTIABLE} else {one}\n")
            if text is not None:
                yield Variant(kind="parameter unlooked", what=f"{name} does not look at {one}", files={path: text})


def _may_vary(value: ast.expr | None) -> TypeGuard[ast.expr]:
    """Whether a result may be a number, a text or a container: no truth value, and nothing."""
    is_truth = isinstance(value, ast.Compare) or (isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not))
    is_fixed = isinstance(value, ast.Constant) and (value.value is None or isinstance(value.value, bool))
    return value is not None and not is_truth and not is_fixed


def _is_spared(node: ast.AST) -> bool:
    """Text for people: documentation, what is raised, asserted, logged or warned; and f-strings."""
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr):
        return True
    if isinstance(node, ast.Expr):
        call = node.value
        if isinstance(call, ast.Constant):
            return True
        if isinstance(call, ast.Call):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            return name in {"warn", "warning", "debug", "info", "error", "exception", "log", "print"}
    return False
