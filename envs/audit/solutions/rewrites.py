"""Right solutions: the reference with what nobody was told chosen otherwise.

What the reference brings and neither the statement nor base names gets another name, order or wording ("choices").
Names that the repository may look up by itself (hooks, visitors, dunders) cannot be told from those that only callers
use; ``measure`` counts a refusal only where the refusing test's own file spells the name.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...synthesis.spans import FunctionNode, Text
from ..text.wording import NAME, words
from . import openings
from .arrangements import arrangements
from .counting import counting
from .edges import edges
from .forms import forms
from .variants import Solved, Variant, changed_lines, defaults_of, functions_of, parsed

RENAMED = "renamed_here"
"""What is added to a name."""
_DECISIONS = (edges, arrangements, counting, forms)
_PLACEHOLDER = re.compile(r"%(?:\(\w+\))?[-+ #0-9.]*[srdifgxX]|\{[^{}]*\}")
_SPEAKING = frozenset({"warn", "warning", "error", "exception", "critical", "info", "fail", "abort"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A rewrite of something that the reference chose.

    Attributes:
        spelled: the name or text that a test must spell for its refusal to count; "" where it counts for any test that
            fails at base.
    """

    variant: Variant
    spelled: str


def choices(solved: Solved) -> list[Choice]:
    """Every choice of the reference that nobody was told, made otherwise."""
    asked = (
        openings.keys, openings.prints, openings.places, openings.errors, openings.sequences, openings.looked_up,
    )  # fmt: skip
    further = [one for kind in asked for one in kind(solved)]
    named = [*_definitions(solved), *_parameters(solved), *_orders(solved), *_messages(solved)]
    named += [Choice(variant=variant, spelled=spelled) for variant, spelled in further]
    return named + [Choice(variant=one, spelled="") for kind in _DECISIONS for one in kind(solved)]


def new_names(solved: Solved) -> set[str]:
    """Names of definitions, parameters and keys that the reference brings: candidates for ``Solved.known``."""
    found = set(_new_definitions(solved)) | {name for _, _, name in _new_parameters(solved)}
    return found | openings.new_keys(solved) | {tail for _, tail in openings.tails(solved)}


def _untold(solved: Solved, name: str) -> bool:
    dunder = name.startswith("__") and name.endswith("__")
    return not dunder and len(name) > 1 and name not in solved.known and name not in NAME.findall(solved.statement)


def _new_definitions(solved: Solved) -> dict[str, str]:
    """Name -> kind, of what is defined after the reference and nowhere before, in the files that it changes."""
    before: set[str] = set()
    after: dict[str, str] = {}
    for _, old, new in solved.pairs():
        before |= set(NAME.findall(old))
        tree = parsed(new)
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, FunctionNode):
                after[node.name] = "function"
            elif isinstance(node, ast.ClassDef):
                after[node.name] = "class"
        for node in tree.body if tree else ():
            if isinstance(node, ast.Assign):
                after.update({one.id: "constant" for one in node.targets if isinstance(one, ast.Name)})
    return {name: kind for name, kind in after.items() if name not in before}


def _definitions(solved: Solved) -> Iterator[Choice]:
    for name, kind in _new_definitions(solved).items():
        if not _untold(solved, name):
            continue
        files = {path: _renamed(text, name) for path, _, text in solved.pairs()}
        files = {path: text for path, text in files.items() if text != solved.gold[path] and parsed(text) is not None}
        if files:
            variant = Variant(kind="another name", what=f"{kind} {name} has another name", files=files)
            yield Choice(variant=variant, spelled=name)


def _renamed(text: str, name: str) -> str:
    """A source with another name wherever the token stands, strings and comments apart."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return text
    spots = [token.start for token in tokens if token.type == tokenize.NAME and token.string == name]
    lines = text.splitlines(keepends=True)
    for row, column in reversed(spots):
        line = lines[row - 1]
        lines[row - 1] = f"{line[:column]}{name}_{RENAMED}{line[column + len(name) :]}"
    return "".join(lines)


def _new_parameters(solved: Solved) -> Iterator[tuple[str, str, str]]:
    """(path, function, parameter) of what a function takes after the reference and did not before."""
    for path, old, new in solved.pairs():
        was, now = parsed(old), parsed(new)
        earlier = functions_of(was) if was else {}
        for name, node in functions_of(now).items() if now else ():
            known = set(_names_of(earlier[name])) if name in earlier else set()
            for parameter in _names_of(node):
                if parameter not in known and parameter not in ("self", "cls"):
                    yield path, name, parameter


def _names_of(node: FunctionNode) -> list[str]:
    arguments = node.args
    return [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


def _parameters(solved: Solved) -> Iterator[Choice]:
    """Parameters that the reference adds: callers may give them by name. Of a function that is new itself nobody but
    the tests' own calls can know them, however common the name is at base."""
    fresh = _new_definitions(solved)
    for path, function, parameter in _new_parameters(solved):
        new_function = function.rpartition(".")[2] in fresh
        if parameter in NAME.findall(solved.statement) or not (new_function or _untold(solved, parameter)):
            continue
        text = solved.gold[path]
        assert text is not None
        tree = parsed(text)
        node = functions_of(tree)[function] if tree else None
        if node is None or not (new_function or parameter in {one.arg for one, _ in defaults_of(node)}):
            continue
        changed = _renamed_parameter(text, node, parameter)
        if changed is not None and parsed(changed) is not None:
            what = f"parameter {parameter} of {function} has another name"
            variant = Variant(kind="another parameter", what=what, files={path: changed})
            yield Choice(variant=variant, spelled=f"{_called_as(function)}({parameter}=")


def _called_as(function: str) -> str:
    """The name by which a function is called; a class's for its ``__init__``."""
    owner, _, name = function.rpartition(".")
    return owner.rpartition(".")[2] if name == "__init__" else name


def _renamed_parameter(text: str, node: FunctionNode, parameter: str) -> str | None:
    """A source with another name for a parameter: in its function, and where calls give it by name."""
    if any(isinstance(child, FunctionNode | ast.Lambda) and child is not node for child in ast.walk(node)):
        return None  # an inner function may have one of the same name
    source, tree = Text(text), parsed(text)
    assert tree is not None
    spots: list[int] = []
    for child in ast.walk(node):
        if isinstance(child, ast.Name) and child.id == parameter:
            spots.append(source.start(child))
        elif isinstance(child, ast.arg) and child.arg == parameter:
            spots.append(source.line_starts[child.lineno - 1] + child.col_offset)
    for call in ast.walk(tree):
        given = call.keywords if isinstance(call, ast.Call) and _calls(call, node.name) else ()
        named = [one for one in given if one.arg == parameter]
        spots += [source.line_starts[one.lineno - 1] + one.col_offset for one in named]
    data = source.data
    for spot in sorted(set(spots), reverse=True):
        data = data[: spot + len(parameter)] + f"_{RENAMED}".encode() + data[spot + len(parameter) :]
    return data.decode()


def _calls(call: ast.Call, name: str) -> bool:
    """Whether a call may be of a function; of ``__init__`` any call may."""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return called == name or name == "__init__"


def _orders(solved: Solved) -> Iterator[Choice]:
    """The last two parameters with defaults of a new function in another order, where no call here gives them by
    place."""
    fresh = {name for name, kind in _new_definitions(solved).items() if kind == "function"}
    for path, _, text in solved.pairs():
        tree = parsed(text)
        for name, node in functions_of(tree).items() if tree else ():
            positional = [*node.args.posonlyargs, *node.args.args]
            if (
                node.name not in fresh
                or len(node.args.defaults) < 2
                or not all(map(_has_span, node.args.defaults[-2:]))
            ):
                continue
            if any(
                isinstance(c, ast.Call) and _calls(c, node.name) and len(c.args) > len(positional) - 3
                for c in ast.walk(tree or node)
            ):
                continue
            source = Text(text)
            spans = []
            for argument, default in zip(positional[-2:], node.args.defaults[-2:]):
                spans.append((source.line_starts[argument.lineno - 1] + argument.col_offset, source.end(default)))
            (a, b), (c, d) = spans
            data = source.data
            changed = (data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]).decode()
            if parsed(changed) is not None and all(_untold(solved, one.arg) for one in positional[-2:]):
                what = f"the last two parameters of {name} in another order"
                yield Choice(variant=Variant(kind="another order", what=what, files={path: changed}), spelled=node.name)


def _has_span(node: ast.expr) -> bool:
    return node.end_col_offset is not None


def _messages(solved: Solved) -> Iterator[Choice]:
    """Messages that the reference raises, warns or logs, in other words; what is filled in stays."""
    told = set(words(solved.statement))
    for path, old, text in solved.pairs():
        lines, tree, source = changed_lines(old, text), parsed(text), Text(text)
        for node in _spoken(tree) if tree else ():
            shown = _text_of(node)
            if node.lineno not in lines or len(words(shown)) < 2 or set(words(shown)) <= told or shown in old:
                continue
            data = source.data
            changed = (data[: source.start(node)] + _reworded(node).encode() + data[source.end(node) :]).decode()
            if parsed(changed) is not None:
                variant = Variant(kind="another wording", what=f"{shown[:60]!r} in other words", files={path: changed})
                yield Choice(variant=variant, spelled=shown)


def _spoken(tree: ast.Module) -> Iterator[ast.Constant | ast.JoinedStr]:
    """String literals in the arguments of what is raised, warned or logged, the outermost."""
    for node in ast.walk(tree):
        call = node.exc if isinstance(node, ast.Raise) else node.value if isinstance(node, ast.Expr) else None
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if not isinstance(node, ast.Raise) and name not in _SPEAKING:
            continue
        pending: list[ast.AST] = [*call.args, *(keyword.value for keyword in call.keywords)]
        while pending:
            part = pending.pop()
            if isinstance(part, ast.JoinedStr) or (isinstance(part, ast.Constant) and type(part.value) is str):
                yield part
            elif isinstance(part, ast.BinOp | ast.Call | ast.Attribute | ast.Tuple):
                pending += ast.iter_child_nodes(part) if not isinstance(part, ast.Call) else [part.func, *part.args]


def _text_of(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))


def _reworded(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return repr(" ".join(("zzz", *_PLACEHOLDER.findall(str(node.value)))))
    filled: list[ast.expr] = [ast.Constant("zzz ")]
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            filled += [part, ast.Constant(" ")]
    return ast.unparse(ast.JoinedStr(filled))


def spelled_in(spelled: str, kind: str, tests: Mapping[str, str | None]) -> list[str]:
    """Test files that spell what a rewrite changed: the name; of a message, three words in a row, or all of fewer; of a
    parameter, a call that gives it by name; of how objects print, a ``repr`` or ``str``; of a part of a name, a text
    that is it."""
    if kind == "another parameter":
        function, _, parameter = spelled.rstrip("=").partition("(")
        return [path for path, text in tests.items() if text and _gives_by_name(text, function, parameter)]
    if kind == "another print":
        asked = re.compile(r"\b(?:repr|str|format|print)\(|![rs]\b|\bcaps\w+")
        return [path for path, text in tests.items() if text and asked.search(text)]
    if kind == "another part of a name":
        literal = re.compile(rf"""(["']){re.escape(spelled)}\1""")
        return [path for path, text in tests.items() if text and literal.search(text)]
    if kind != "another wording":
        return [path for path, text in tests.items() if text and re.search(rf"\b{re.escape(spelled)}\b", text)]
    said = words(spelled)
    runs = {tuple(said[n : n + 3]) for n in range(max(1, len(said) - 2))}
    found = []
    for path, text in tests.items():
        held = words(text or "")
        longest = {tuple(held[n : n + size]) for size in {len(run) for run in runs} for n in range(len(held))}
        if runs & longest:
            found.append(path)
    return found


def _gives_by_name(text: str, function: str, parameter: str) -> bool:
    tree = parsed(text)
    calls = [one for one in ast.walk(tree) if isinstance(one, ast.Call) and one.keywords] if tree else []
    return any(_calls(one, function) and parameter in [given.arg for given in one.keywords] for one in calls)
