"""Further choices of a reference that nobody was told: the module that something stands in, keys of what is given back,
how objects print, which error is raised, an order of results, what a name ends with. ``rewrites`` has names, orders and
wordings."""

import ast
import builtins
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from ...synthesis.spans import FunctionNode, Text
from ..text.wording import NAME
from .variants import Solved, Variant, changed_lines, parsed

PLACED = "placed_here"
"""What is added to a module's name."""
_PRINTING = frozenset({"__repr__", "__str__"})
_TELLS_OF_PRINTING = re.compile(r"\b(?:repr|str|print(?:s|ed|ing)?|shown?|display(?:s|ed)?)\b|__(?:repr|str)__", re.I)

_TELLS_OF_ERRORS = re.compile(r"\b(?:error|exception|rais(?:e|es|ed|ing)|fail(?:s|ed)?|refus(?:e|es|ed))\b")
_NAMES_AN_ERROR = re.compile(r"\b(?:[A-Z]\w*(?:Error|Exception|Invalid|Warning|Exit)|Invalid[A-Z]\w*)\b")
_TELLS_OF_ORDER = re.compile(
    r"\b(?:order\w*|sort\w*|alphabet\w*|(?:de|a)scending|lexic\w*|rank\w*|(?:small|great|large|low|high)est|lists?)\b|"
    r"\[[^\]]*,",
    re.I,
)
_ERRORS = ("ValueError", "TypeError", "RuntimeError")


def new_keys(solved: Solved) -> set[str]:
    """Texts that the reference uses as keys and its files did not hold: candidates for ``Solved.known``."""
    before = "\n".join(old for _, old, _ in solved.pairs())
    found: set[str] = set()
    for _, old, text in solved.pairs():
        lines, tree = changed_lines(old, text), parsed(text)
        for node in ast.walk(tree) if tree else ():
            for key in node.keys if isinstance(node, ast.Dict) else ():
                if isinstance(key, ast.Constant) and type(key.value) is str and key.lineno in lines:
                    found.add(key.value)
    return {key for key in found if NAME.fullmatch(key) and len(key) > 1 and key not in before}


def keys(solved: Solved) -> Iterator[tuple[Variant, str]]:
    """(variant, key) of each key that neither statement nor base has, with another text wherever it stands."""
    for key in sorted(new_keys(solved) - solved.known - set(NAME.findall(solved.statement))):
        files = {path: _respelled(text, key) for path, _, text in solved.pairs()}
        files = {path: text for path, text in files.items() if text != solved.gold[path]}
        yield Variant(kind="another key", what=f"the key {key!r} has another name", files=files), key


def _respelled(text: str, key: str) -> str:
    tree, source = parsed(text), Text(text)
    nodes = [one for one in ast.walk(tree) if isinstance(one, ast.Constant) and one.value == key] if tree else []
    data = source.data
    for node in sorted(nodes, key=source.start, reverse=True):
        data = data[: source.start(node)] + repr(f"{key}_here").encode() + data[source.end(node) :]
    return data.decode()


def prints(solved: Solved) -> Iterator[tuple[Variant, str]]:
    """(variant, class or function) of each changed ``__repr__`` or ``__str__`` with another text around its values."""
    if _TELLS_OF_PRINTING.search(solved.statement):
        return
    for path, old, text in solved.pairs():
        lines, tree, source = changed_lines(old, text), parsed(text), Text(text)
        for node in ast.walk(tree) if tree else ():
            if not isinstance(node, FunctionNode) or node.name not in _PRINTING or node.lineno not in lines:
                continue
            returns = [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value is not None]
            data = source.data
            for value in sorted(returns, key=source.start, reverse=True):
                shown = data[source.start(value) : source.end(value)]
                data = data[: source.start(value)] + b"'zzz ' + (" + shown + b")" + data[source.end(value) :]
            changed = data.decode()
            if changed != text and parsed(changed) is not None:
                what = f"{node.name}, line {node.lineno}, gives another text"
                yield Variant(kind="another print", what=what, files={path: changed}), node.name


def errors(solved: Solved) -> Iterator[tuple[Variant, str]]:
    """(variant, class) of each built-in error that the reference raises where the statement speaks of an error and
    names none. What Python itself asks for in methods with such names, and errors that mean something to it, stay."""
    if not _TELLS_OF_ERRORS.search(solved.statement) or _NAMES_AN_ERROR.search(solved.statement):
        return
    for path, old, text in solved.pairs():
        lines, tree, source = changed_lines(old, text), parsed(text), Text(text)
        functions = [one for one in ast.walk(tree) if isinstance(one, FunctionNode)] if tree else []
        spared = {id(part) for one in functions if one.name.startswith("__") for part in ast.walk(one)}
        raised: dict[str, list[ast.Name]] = {}
        for node in ast.walk(tree) if tree else ():
            error = getattr(node.exc, "func", node.exc) if isinstance(node, ast.Raise) else None
            if isinstance(error, ast.Name) and error.lineno in lines and id(node) not in spared:
                raised.setdefault(error.id, []).append(error)
        for name, nodes in raised.items():
            kind = getattr(builtins, name, None)
            if not isinstance(kind, type) or not issubclass(kind, ValueError | TypeError | LookupError | RuntimeError):
                continue
            other = next(one for one in _ERRORS if not issubclass(kind, getattr(builtins, one)))
            data = source.data
            for node in sorted(nodes, key=source.start, reverse=True):
                data = data[: source.start(node)] + other.encode() + data[source.end(node) :]
            what = f"{other} is raised instead of {name}, line {nodes[0].lineno}"
            yield Variant(kind="another error", what=what, files={path: data.decode()}), name


def sequences(solved: Solved) -> Iterator[tuple[Variant, str]]:
    """(variant, function) of each new function that sorts what it gives back, where nobody spoke of an order: the other
    way round."""
    if _TELLS_OF_ORDER.search(solved.statement):
        return
    for path, old, text in solved.pairs():
        before, source, lines = set(NAME.findall(old)), Text(text), changed_lines(old, text)
        tree = parsed(text)
        for node in ast.walk(tree) if tree else ():
            if not isinstance(node, FunctionNode) or node.name in before:
                continue
            given = [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.lineno in lines]
            sorting = [one for one in given if isinstance(one, ast.Call) and getattr(one.func, "id", "") == "sorted"]
            data = source.data
            for value in sorted(sorting, key=source.start, reverse=True):
                data = data[: source.end(value)] + b"[::-1]" + data[source.end(value) :]
            if sorting:
                what = f"{node.name} gives the same in another order"
                yield Variant(kind="another sequence", what=what, files={path: data.decode()}), node.name


def tails(solved: Solved) -> Iterator[tuple[str, str]]:
    """(name, last part) of each new function or class whose first part two others of its file have at base: the part
    may be what it is looked up by (``strategy_append`` by "append")."""
    for _, old, text in solved.pairs():
        was, tree = parsed(old), parsed(text)
        before = _defined(was) if was else set()
        for name in sorted(_defined(tree) - before if tree else ()):
            for cut in (at for at, sign in enumerate(name) if sign == "_" and 0 < at < len(name) - 1):
                first, last = name[: cut + 1], name[cut + 1 :]
                if first.strip("_") and sum(other.startswith(first) for other in before) > 1 and len(last) > 1:
                    yield name, last
                    break


def _defined(tree: ast.Module) -> set[str]:
    return {node.name for node in ast.walk(tree) if isinstance(node, FunctionNode | ast.ClassDef)}


def looked_up(solved: Solved) -> Iterator[tuple[Variant, str]]:
    """(variant, last part) of each new name with a last part that nobody was told of, with another one."""
    told = {*NAME.findall(solved.statement), *solved.known}
    joined = re.sub(r"\W+", "_", solved.statement.lower())
    for name, last in tails(solved):
        if name in told or last in told or last.lower() in joined:
            continue
        files = {path: re.sub(rf"\b{name}\b", f"{name}_here", text) for path, _, text in solved.pairs()}
        files = {path: text for path, text in files.items() if text != solved.gold[path]}
        what = f"{name} ends with another word than {last}"
        yield Variant(kind="another part of a name", what=what, files=files), last


def places(solved: Solved) -> Iterator[tuple[Variant, str]]:
    """(variant, module) of each module that the reference makes and nobody named, in a file of another name."""
    for path, text in solved.gold.items():
        module = PurePosixPath(path).stem
        if text is None or solved.base.get(path) is not None or module.startswith("__"):
            continue
        if _names_module(solved.statement, module):
            continue
        files: dict[str, str | None] = {path: None}
        files[str(PurePosixPath(path).with_name(f"{module}_{PLACED}.py"))] = _reimported(text, module)
        for other, held in solved.gold.items():
            if other != path and held is not None and (changed := _reimported(held, module)) != held:
                files[other] = changed
        yield Variant(kind="another place", what=f"{path} has another name", files=files), module


def _names_module(statement: str, module: str) -> bool:
    """Whether a statement names a module as one; that it uses the word says nothing."""
    name = re.escape(module)
    asked = rf"[.`/]{name}\b|\b{name}(?:\.\w|`)|\b(?:import {name}|from {name} import|module {name}|{name} module)\b"
    return re.search(asked, statement) is not None


def _reimported(text: str, module: str) -> str:
    """A source that imports a module by its other name."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if line.lstrip().startswith(("import ", "from ")):
            lines[number] = re.sub(rf"\b{re.escape(module)}\b", f"{module}_{PLACED}", line)
    return "".join(lines)
