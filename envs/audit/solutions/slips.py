"""Wrong solutions as people write them: one level instead of all, the first instead of each, no copy taken, an option
that is not heeded, what is given handed back. There is a reason behind each, whereas ``mutants`` has what operators
make of any line."""

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest

from .variants import Brought, Solved, Variant, begun_with, brought, defaults_of, is_new, returns_of

_OPPOSITES = {"any": "all", "all": "any", "min": "max", "max": "min"}
_NORMAL = frozenset({"strip", "lstrip", "rstrip", "lower", "upper", "casefold", "title", "capitalize", "copy"})
_NEARLY = {
    "fullmatch": "match",
    "match": "search",
    "rpartition": "partition",
    "rsplit": "split",
    "rfind": "find",
    "rindex": "index",
    "removeprefix": "lstrip",
    "removesuffix": "rstrip",
}
_GROUPED = (
    "(lambda xs, key=None: (lambda keyed: [(k, [x for other, x in keyed if other == k]) for n, (k, _) in "
    "enumerate(keyed) if k not in [one for one, _ in keyed[:n]]])([(key(x) if key else x, x) for x in xs]))"
)
"""``groupby`` that takes together all that is equal, in the order of the first ones."""


_DEPTH = re.compile(r"\b(?:deep\w*|depths?|nested|recursive\w*|(?:every|all|any) levels?)\b", re.I)


def spoken_of(slip: Variant, statement: str) -> str:
    """What a statement says of depth where a slip copies, or goes, one level deep; else "". No call shows what a copy
    shares with its original."""
    found = _DEPTH.search(statement) if slip.kind in ("shallow copy", "one level") else None
    return f"the statement asks for it: {found[0]!r}" if found else ""


def slips(solved: Solved, *, most: int) -> list[Variant]:
    """Slips in what the reference brings, kinds in turn, none twice.

    Args:
        most: how many.
    """
    found: Mapping[str, list[Variant]] = defaultdict(list)
    for one in brought(solved):
        for variant in (variant for kind in _KINDS for variant in kind(one)):
            found[variant.kind].append(variant)
    made: list[Variant] = []
    for variant in (variant for in_turn in zip_longest(*found.values()) for variant in in_turn):
        if variant is None or any(variant.files == other.files for other in made):
            continue
        if is_new(variant.files, solved.gold, solved.base):
            made.append(variant)
    return made[:most]


def _shallow(one: Brought) -> Iterator[Variant]:
    """``deepcopy`` is ``copy``."""
    for node in one.fresh():
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "deepcopy" and node.args:
            other = f"__import__('copy').copy({ast.unparse(node.args[0])})"
            yield from one.variant("shallow copy", f"{one.name} copies one level", [(node, other)])


def _grouped(one: Brought) -> Iterator[Variant]:
    """``groupby`` takes together what does not stand together."""
    for node in one.fresh():
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "groupby":
            yield from one.variant("grouped", f"{one.name} groups all that are equal", [(node.func, _GROUPED)])


def _one_level(one: Brought) -> Iterator[Variant]:
    """A function does not call itself for what lies within."""
    own = {argument.arg for argument in (*one.node.args.posonlyargs, *one.node.args.args)}
    for node in one.fresh():
        if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] != one.node.name:
            continue
        within = [part for part in node.args if not (isinstance(part, ast.Name) and part.id in own)]
        if within and not isinstance(within[0], ast.Starred):
            what = f"{one.name} goes one level deep"
            yield from one.variant("one level", what, [(node, f"({ast.unparse(within[0])})")])


def _some_of_them(one: Brought) -> Iterator[Variant]:
    """A loop ends after the first, or before the last."""
    for node in ast.walk(one.node):
        over = node.iter if isinstance(node, ast.For | ast.comprehension) else None
        if over is None or over.lineno not in one.lines:
            continue
        for what, part in (("the first alone", "[:1]"), ("all but the last", "[:-1]")):
            yield from one.variant(what, f"{one.name} takes {what}", [(over, f"list({ast.unparse(over)}){part}")])


def _nearly(one: Brought) -> Iterator[Variant]:
    """A function that is nearly the right one; ``replace`` and ``sub`` for the first place alone; text taken as it
    is."""
    for node in one.fresh():
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if isinstance(node.func, ast.Name) and name in _OPPOSITES:
            yield from one.variant("opposite", f"{one.name} takes {_OPPOSITES[name]}", [(node.func, _OPPOSITES[name])])
        if not isinstance(node.func, ast.Attribute):
            continue
        owner = ast.unparse(node.func.value)
        if name in _NEARLY:
            other = f"({owner}).{_NEARLY[name]}"
            yield from one.variant("nearly the same", f"{one.name} takes {_NEARLY[name]}", [(node.func, other)])
        elif name in _NORMAL and not node.args and not node.keywords:
            yield from one.variant("taken as it is", f"{one.name} without {name}()", [(node, f"({owner})")])
        elif (name, len(node.args)) in (("replace", 2), ("sub", 3)) and not node.keywords:
            other = f"{ast.unparse(node)[:-1]}, {'1' if name == 'replace' else 'count=1'})"
            yield from one.variant("the first alone", f"{one.name} replaces the first alone", [(node, other)])


def _falsy(one: Brought) -> Iterator[Variant]:
    """What is false is taken for what is not there: ``x is None`` is ``not x``."""
    for node in one.fresh():
        if not isinstance(node, ast.Compare) or len(node.ops) != 1:
            continue
        is_none = isinstance(node.comparators[0], ast.Constant) and node.comparators[0].value is None
        if is_none and isinstance(node.ops[0], ast.Is | ast.IsNot):
            asked = f"({'not ' if isinstance(node.ops[0], ast.Is) else 'bool'}({ast.unparse(node.left)}))"
            yield from one.variant("falsy is missing", f"{one.name} takes false for None", [(node, asked)])


def _one_type(one: Brought) -> Iterator[Variant]:
    """Of several types the first alone."""
    for node in one.fresh():
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance" and len(node.args) == 2:
            types = node.args[1]
            if isinstance(types, ast.Tuple) and len(types.elts) > 1:
                first = ast.unparse(types.elts[0])
                yield from one.variant("one type", f"{one.name} knows {first} alone", [(types, first)])


def _no_copy(one: Brought) -> Iterator[Variant]:
    """What is changed is no copy: ``x[:]`` and ``[*x]`` are ``x``."""
    for node in one.fresh():
        if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Slice):
            continue
        if not any((node.slice.lower, node.slice.upper, node.slice.step)):
            yield from one.variant("no copy", f"{one.name} takes no copy", [(node, f"({ast.unparse(node.value)})")])


def _unheeded(one: Brought) -> Iterator[Variant]:
    """An option is as it is by default, whatever was given."""
    for argument, default in defaults_of(one.node):
        if isinstance(default, ast.Constant) and argument.lineno in one.lines:
            text = begun_with(one.text, one.node, f"{argument.arg} = {ast.unparse(default)}\n")
            if text is not None:
                what = f"{one.name} does not heed {argument.arg}"
                yield Variant(kind="option unheeded", what=what, files={one.path: text})


def _handed_back(one: Brought) -> Iterator[Variant]:
    """The last result is what the function was given."""
    returns = [
        node for node in returns_of(one.node) if node.value is not None and not isinstance(node.value, ast.Constant)
    ]
    if not returns:
        return
    last = max(returns, key=lambda node: node.lineno)
    if last.lineno in one.lines:
        for argument in (*one.node.args.posonlyargs, *one.node.args.args):
            if argument.arg not in ("self", "cls"):
                what = f"{one.name} gives {argument.arg} back"
                yield from one.variant("handed back", what, [(last, f"return {argument.arg}")])


_KINDS: tuple[Callable[[Brought], Iterator[Variant]], ...] = (
    _shallow, _grouped, _one_level, _handed_back, _unheeded, _falsy, _nearly, _no_copy, _one_type, _some_of_them,
)  # fmt: skip
