"""Decisions on results that a reference makes and nobody told: their order, which of equal ones, which of two with one
key, whether what comes twice stays, how is rounded, whether an end belongs to a range, which container. Each is made
otherwise only where neither the statement nor the file at base speaks of it."""

import ast
import copy
import re
from collections.abc import Iterator

from .variants import Brought, Solved, Variant, brought, functions_of, parsed, returns_of

_TELLS_WHICH_OF_EQUAL = re.compile(
    r"\b(?:ties?|tied|equal\w*|same|both|several|stable|order\w*|first\w*|last\w*|ear\w+st|earlier|latest|later|"
    r"small\w*|larg\w*|low\w*|high\w*|great\w*|left\w*|right\w*|alphabet\w*|in doubt|more than one)\b",
    re.I,
)
_TELLS_WHICH_ORDER = re.compile(
    r"\b(?:first|last|sort\w*|alphabet\w*|ascending|descending|increasing|decreasing|lexic\w*|insert\w*|insertion|"
    r"appear\w*|occur\w*|original|follow\w*|reverse\w*|order (?:of|in which|as|they|that|by)|"
    r"(?:in|their|its|given|argument|input|own|keep|keeps|preserv\w+) (?:the |this |that )?order|ordered by)\b",
    re.I,
)
_TELLS_OF_ROUNDING = re.compile(
    r"\b(?:round\w*|decimal\w*|digits?|precision|places?|nearest|whole|integers?|trunc\w*|floor|ceil\w*|exact\w*)\b",
    re.I,
)
_TELLS_OF_HALVES = re.compile(r"\b(?:hal(?:f|ves)|even|away|bankers?|upwards?|downwards?|up|down)\b|\.5", re.I)
_TELLS_OF_RANGES = re.compile(r"\b(?:between|within|range|up to|until|from\b.{1,30}\bto)\b", re.I)
_TELLS_OF_ENDS = re.compile(
    r"inclu|exclu|\b(?:ends?|bounds?|at (?:least|most)|or (?:more|less|later|earlier|equal)|above|below|under|over|"
    r"exceed\w*|before|after|than|open|closed|strict\w*|last|first|up)\b|[<>]",
    re.I,
)
_TELLS_WHICH_WINS = re.compile(
    r"\b(?:overrid\w*|overwr\w*|win\w*|preced\w*|prefer\w*|replac\w*|updat\w*|later|last|first|latter|former|keep\w*|"
    r"kept|duplicat\w*|twice|same|both|tak\w+ over|priorit\w*|merg\w*)\b",
    re.I,
)
_TELLS_OF_REPEATS = re.compile(
    r"\b(?:duplicat\w*|once|uniqu\w*|distinct|differ\w*|each|every|twice|repeat\w*|sets?|names?|keys?)\b", re.I
)
_TELLS_OF_CONTAINERS = re.compile(
    r"\b(?:lists?|tuples?|iter\w*|generat\w*|sequences?|arrays?|yield\w*|collections?|sets?|pairs?|triples?)\b|[\[(]\w*,",
    re.I,
)
_WITHOUT_ORDER = frozenset({"set", "frozenset"})


def arrangements(solved: Solved) -> Iterator[Variant]:
    """Every decision of these kinds made otherwise."""
    for one in brought(solved):
        for decision in (_ties, _orders, _rounding, _ends, _winners, _repeated, _containers):
            yield from decision(one, solved.statement)


def _ties(one: Brought, statement: str) -> Iterator[Variant]:
    """Of several that are equally good another one: ``min`` and ``max`` by a key look from the end, and a running best
    gives way to its equal."""
    if _TELLS_WHICH_OF_EQUAL.search(statement):
        return
    for node in one.fresh():
        if isinstance(node, ast.Call) and _is_best_by_key(node):
            over = f"list({ast.unparse(node.args[0])})[::-1]"
            what = f"{one.name} gives another of those that are equal"
            yield from one.variant("another of equal ones", what, [(node.args[0], over)])
        if isinstance(node, ast.For | ast.While):
            for test in (part.test for part in ast.walk(node) if isinstance(part, ast.If) and _is_running(part)):
                for compared in _running(test):
                    other = copy.deepcopy(compared)
                    other.ops = [ast.LtE() if isinstance(compared.ops[0], ast.Lt) else ast.GtE()]
                    what = f"{one.name} gives the last of those that are equal"
                    yield from one.variant("another of equal ones", what, [(compared, f"({ast.unparse(other)})")])


def _is_best_by_key(node: ast.Call) -> bool:
    is_best = getattr(node.func, "id", "") in ("min", "max") and len(node.args) == 1
    return is_best and not isinstance(node.args[0], ast.Starred) and any(word.arg == "key" for word in node.keywords)


def _is_running(node: ast.If) -> bool:
    """Whether a branch keeps what it compared: ``if d < best: best = d``."""
    kept = " ".join(ast.unparse(part.value) for part in node.body if isinstance(part, ast.Assign))
    names = (name for part in node.body for name in ast.walk(part) if isinstance(name, ast.Name))
    bound = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return any(
        isinstance(best, ast.Name) and best.id in bound and ast.unparse(other) in kept
        for one in _running(node.test)
        for best, other in ((one.left, one.comparators[0]), (one.comparators[0], one.left))
    )


def _running(test: ast.expr) -> list[ast.Compare]:
    found = [one for one in ast.walk(test) if isinstance(one, ast.Compare) and len(one.ops) == 1]
    return [one for one in found if isinstance(one.ops[0], ast.Lt | ast.Gt)]


def _orders(one: Brought, statement: str) -> Iterator[Variant]:
    """What came in no order at base, as it was taken from a set, and is in some order now, the other way round."""
    tree = parsed(one.before)
    was = functions_of(tree).get(one.name) if tree else None
    if was is None or _TELLS_WHICH_ORDER.search(statement) or not _goes_over_set(was) or _goes_over_set(one.node):
        return
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(one.node)):
        given = "lambda f: lambda *a, **k: (yield from list(f(*a, **k))[::-1])"
    else:
        given = "lambda f: lambda *a, **k: (lambda v: v[::-1] if type(v) in (list, tuple) else v)(f(*a, **k))"
    yield from _decorated(one, given, "another sequence", "gives the same in another order")


def _decorated(one: Brought, decorator: str, kind: str, what: str) -> Iterator[Variant]:
    """The function under another decorator, next to its name: what others do to it stays."""
    lines = one.text.splitlines(keepends=True)
    lines.insert(one.node.lineno - 1, f"{' ' * one.node.col_offset}@({decorator})\n")
    if parsed(text := "".join(lines)) is not None:
        yield Variant(kind=kind, what=f"{one.name} {what}", files={one.path: text})


def _goes_over_set(node: ast.AST) -> bool:
    """Whether a loop goes over a set, or a name that is one."""
    sets = {
        target.id
        for part in ast.walk(node)
        if isinstance(part, ast.Assign) and _is_set(part.value)
        for target in part.targets
        if isinstance(target, ast.Name)
    }
    over = [part.iter for part in ast.walk(node) if isinstance(part, ast.For | ast.comprehension)]
    return any(_is_set(part) or (isinstance(part, ast.Name) and part.id in sets) for part in over)


def _is_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    if isinstance(node, ast.BinOp):
        return _is_set(node.left) or _is_set(node.right)
    called = node.func if isinstance(node, ast.Call) else None
    owner = called.value if isinstance(called, ast.Attribute) else called
    return isinstance(owner, ast.Name) and owner.id in _WITHOUT_ORDER


def _rounding(one: Brought, statement: str) -> Iterator[Variant]:
    """Rounded to a digit more, or cut off, where nobody spoke of it; else halves go up that went to the even one."""
    if not one.is_new or "round(" in one.before:
        return
    for node in ast.walk(one.node):
        if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "round" or node.keywords:
            continue
        value, *digits = (ast.unparse(argument) for argument in node.args)
        if not _TELLS_OF_ROUNDING.search(statement):
            other = f"round({value}, {digits[0]} + 1)" if digits else f"int({value})"
        elif not digits and not _TELLS_OF_HALVES.search(statement):
            other = f"(lambda v: int(v + 0.5) if v >= 0 else -int(0.5 - v))({value})"
        else:
            continue
        yield from one.variant("another rounding", f"{one.name} rounds otherwise", [(node, other)])


def _ends(one: Brought, statement: str) -> Iterator[Variant]:
    """Where the statement speaks of a range and not of its ends, each end that a new function compares with."""
    if not one.is_new or not _TELLS_OF_RANGES.search(statement) or _TELLS_OF_ENDS.search(statement):
        return
    turned = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
    for node in ast.walk(one.node):
        if not isinstance(node, ast.Compare):
            continue
        sides = (node.left, *node.comparators)
        for place, op in enumerate(node.ops):
            if type(op) in turned and all(isinstance(side, ast.Name | ast.Attribute) for side in sides):
                other = copy.deepcopy(node)
                other.ops[place] = turned[type(op)]()
                what = f"{one.name} counts an end otherwise"
                yield from one.variant("another end", what, [(node, f"({ast.unparse(other)})")])


def _winners(one: Brought, statement: str) -> Iterator[Variant]:
    """Of two values with one key the other, in what a new function puts together."""
    if not one.is_new or _TELLS_WHICH_WINS.search(statement):
        return
    empty = {
        target.id
        for node in ast.walk(one.node)
        if isinstance(node, ast.Assign) and ast.unparse(node.value) in ("{}", "dict()")
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(one.node):
        if isinstance(node, ast.Dict) and len(node.keys) == 2 and node.keys == [None, None]:
            written = f"{{**{ast.unparse(node.values[1])}, **{ast.unparse(node.values[0])}}}"
            yield from one.variant("another winner", f"{one.name} prefers the first", [(node, written)])
        for put in ast.walk(node) if isinstance(node, ast.For) else ():
            if not isinstance(put, ast.Assign) or len(put.targets) != 1:
                continue
            place = put.targets[0]
            if isinstance(place, ast.Subscript) and isinstance(place.value, ast.Name) and place.value.id in empty:
                value, name = ast.unparse(put.value), place.value.id
                if not re.search(rf"\b{name}\b", value):
                    kept = f"{name}.setdefault({ast.unparse(place.slice)}, {value})"
                    yield from one.variant("another winner", f"{one.name} keeps the first of a key", [(put, kept)])


def _repeated(one: Brought, statement: str) -> Iterator[Variant]:
    """A new function that gives each once gives all."""
    if not one.is_new or _TELLS_OF_REPEATS.search(statement):
        return
    for node in ast.walk(one.node):
        outer = node.value if isinstance(node, ast.Return) else None
        inner = outer.args[0] if isinstance(outer, ast.Call) and len(outer.args) == 1 else None
        if isinstance(inner, ast.Call) and ast.unparse(inner.func) in ("set", "dict.fromkeys") and inner.args:
            all_of_them = ast.unparse(inner.args[0])
            yield from one.variant("repeated", f"{one.name} gives what comes twice twice", [(inner, all_of_them)])


def _containers(one: Brought, statement: str) -> Iterator[Variant]:
    """A new function that gives lists gives tuples, and one that yields gives lists, where nobody spoke of containers
    and no function at base does so."""
    tree = parsed(one.before)
    if not one.is_new or _TELLS_OF_CONTAINERS.search(statement) or tree is None:
        return
    yields = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(one.node))
    if yields and "yield" not in one.before and not isinstance(one.node, ast.AsyncFunctionDef):
        yield from _decorated(one, "lambda f: lambda *a, **k: list(f(*a, **k))", "another container", "gives a list")
    if any(map(_gives_list, ast.walk(tree))):
        return
    returns = returns_of(one.node)
    if returns and all(map(_gives_list, returns)):
        edits = [(node.value, f"tuple({ast.unparse(node.value)})") for node in returns if node.value is not None]
        yield from one.variant("another container", f"{one.name} gives a tuple", edits)


def _gives_list(node: ast.AST) -> bool:
    value = node.value if isinstance(node, ast.Return) else None
    named = isinstance(value, ast.Call) and getattr(value.func, "id", "") in ("list", "sorted")
    return isinstance(value, ast.List | ast.ListComp) or named
