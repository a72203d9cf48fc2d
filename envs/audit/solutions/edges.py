"""Decisions at the edges that a reference makes and nobody told: what comes of nothing, how what is wrong is noticed,
whether a method gives its object back. Each is made otherwise only where neither the statement nor a neighbour at base
speaks of it."""

import ast
import builtins
import re
from collections.abc import Iterator

from .variants import Brought, Solved, Variant, brought, parsed

_TELLS_OF_EDGES = re.compile(
    r"\b(?:none|null|nothing|empty|blank|zero|missing|absent|no|without any|invalid|default\w*|otherwise|unless|"
    r"error\w*|exception\w*|rais\w+|fail\w*|refus\w+|not (?:there|found|set|given|present|exist\w*))\b",
    re.I,
)
_TELLS_OF_ERRORS = re.compile(r"error|exception|\brais|\bfail|refus|reject|invalid|crash|traceback|illegal", re.I)
_TELLS_OF_WARNINGS = re.compile(r"warn", re.I)
_NAMES_A_WARNING = re.compile(r"\b\w+Warning\b|deprecat", re.I)
_TELLS_OF_CHAINS = re.compile(r"\b(?:return\w*|giv(?:e|es|en)|chain\w*|fluent|itself|self)\b", re.I)
_WARNINGS = ("RuntimeWarning", "UserWarning")


def edges(solved: Solved) -> Iterator[Variant]:
    """Every decision of these kinds made otherwise."""
    for one in brought(solved):
        yield from _of_nothing(one, solved.statement)
        yield from _noticed(one, solved.statement)
        yield from _refused(one, solved.statement)
        yield from _given_back(one, solved.statement)


def _of_nothing(one: Brought, statement: str) -> Iterator[Variant]:
    """A new function that gives None, itself or what it was given for the least input raises, or gives None; so does
    one that gives None where it found nothing."""
    if not one.is_new or _TELLS_OF_EDGES.search(statement):
        return
    given = {argument.arg for argument in (*one.node.args.posonlyargs, *one.node.args.args)}
    tree = parsed(one.before)
    habit = tree is not None and any(map(_gives_none, ast.walk(tree)))
    ends = [(node.body[0], "the least input") for node in one.node.body if isinstance(node, ast.If) and _is_edge(node)]
    if len(one.node.body) > 1 and isinstance(one.node.body[-2], ast.For | ast.While):
        ends.append((one.node.body[-1], "what is not found"))
    for end, what in ends:
        if _gives_none(end) and not habit:
            yield from one.variant("another edge", f"{one.name} raises for {what}", [(end, "raise ValueError")])
        elif end is not one.node.body[-1] and isinstance(end, ast.Return) and ast.unparse(end)[7:] in given:
            yield from one.variant("another edge", f"{one.name} gives None for {what}", [(end, "return None")])


def _gives_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Return) and isinstance(node.value, ast.Constant) and node.value.value is None


def _is_edge(node: ast.If) -> bool:
    """``if not x: …``, ``if len(x) == 0: …`` and the like, with one statement and no other branch."""
    if len(node.body) != 1 or node.orelse:
        return False
    test = node.test
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return isinstance(test.operand, ast.Name | ast.Attribute | ast.Call)
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq | ast.Is):
        return False
    return isinstance(test.comparators[0], ast.Constant) and test.comparators[0].value in (None, 0, "")


def _noticed(one: Brought, statement: str) -> Iterator[Variant]:
    """A warning is an error where nobody spoke of warnings, and of another category where none was named."""
    told = _TELLS_OF_WARNINGS.search(statement)
    for node in ast.walk(one.node):
        if not isinstance(node, ast.Expr) or node.lineno not in one.lines:
            continue
        call = node.value
        if not isinstance(call, ast.Call) or not call.args:
            continue
        if ast.unparse(call.func) not in ("warnings.warn", "warn"):
            continue
        category = next((word.value for word in call.keywords if word.arg == "category"), (*call.args, None, None)[1])
        if not told and "warn" not in one.before:
            error = f"raise ValueError({ast.unparse(call.args[0])})"
            yield from one.variant("another notice", f"{one.name} raises and does not warn", [(node, error)])
        elif told and isinstance(category, ast.Name) and not _NAMES_A_WARNING.search(statement):
            other = next(name for name in _WARNINGS if name != category.id)
            if category.id not in one.before:
                yield from one.variant("another notice", f"{one.name} warns with {other}", [(category, other)])


def _refused(one: Brought, statement: str) -> Iterator[Variant]:
    """A new function's error of a value is another one where nobody spoke of errors, and its file raises no such at
    base. That of a type, a key, an index or an attribute is the one that Python has for it."""
    if not one.is_new or _TELLS_OF_ERRORS.search(statement) or one.name.rpartition(".")[2].startswith("__"):
        return
    raised: dict[str, list[tuple[ast.expr, str]]] = {}
    for node in ast.walk(one.node):
        error = getattr(node.exc, "func", node.exc) if isinstance(node, ast.Raise) else None
        if not isinstance(error, ast.Name):
            continue
        kind = getattr(builtins, error.id, None)
        if isinstance(kind, type) and issubclass(kind, ValueError | RuntimeError) and error.id not in one.before:
            other = "RuntimeError" if issubclass(kind, ValueError) else "ValueError"
            raised.setdefault(error.id, []).append((error, other))
    for name, edits in raised.items():
        yield from one.variant("another error", f"{one.name} raises another error than {name}", edits)


def _given_back(one: Brought, statement: str) -> Iterator[Variant]:
    """A new method that gives its object back gives nothing, where nobody spoke of results and no other method of the
    file does so."""
    gives_self = re.compile(r"^\s*return self$", re.M)
    if not one.is_new or _TELLS_OF_CHAINS.search(statement) or gives_self.search(one.before):
        return
    returns = [node for node in ast.walk(one.node) if isinstance(node, ast.Return) and node.value is not None]
    if returns and all(isinstance(node.value, ast.Name) and node.value.id == "self" for node in returns):
        edits = [(node, "return None") for node in returns]
        yield from one.variant("another result", f"{one.name} does not give its object back", edits)
