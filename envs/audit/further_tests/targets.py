"""Functions that further tests may call by themselves: what a reference changes, and what calls it, where everybody who
solves the task has to have them."""

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ...synthesis.spans import FunctionNode
from ..solutions.variants import Files, changed_functions, first_line_of, functions_of, parsed
from ..text.wording import NAME
from .values import is_free

CALLERS = 3
"""Steps from a changed function to those that call it."""
_SOURCES = ("src/", "lib/", "python/", "source/")

Given = Mapping[str, str]
"""Parameter -> source of its value; "*" and "**" for the further ones. "?" and what is known of it where no source can
be given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A function or method, or the making of an object.

    Attributes:
        name: dotted; of what makes an object its class.
        module: where it is imported from.
        place: (file, first line) of the code that runs.
        node: its definition.
        owner: the class whose object it is called on; "" for a function, a static or class method.
        drops: leading parameters that a caller does not give ("self").
        is_changed: whether the reference changes it; else it is near what it changes.
        seen: what is given to it in tests and examples.
        gave: notes of calls that were tried and are among those seen.
        receivers: sources of objects that it is called on there.
    """

    name: str
    module: str
    place: tuple[str, int]
    node: FunctionNode
    owner: str = ""
    drops: int = 0
    is_changed: bool = False
    seen: list[Given] = field(default_factory=list)
    gave: set[str] = field(default_factory=set)
    receivers: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> list[str]:
        return [one.arg for one in (*self.node.args.posonlyargs, *self.node.args.args)][self.drops :]

    @property
    def required(self) -> list[str]:
        args = self.node.args
        positional = [one.arg for one in (*args.posonlyargs, *args.args)]
        needed = positional[: len(positional) - len(args.defaults)][self.drops :]
        return needed + [one.arg for one, default in zip(args.kwonlyargs, args.kw_defaults) if default is None]

    def see(self, given: Given) -> None:
        if given not in self.seen:
            self.seen.append(given)


def targets(base: Files, gold: Files, told: Collection[str]) -> list[Target]:
    """Changed functions first, then their callers in the same file, then the other methods of their classes and what
    makes objects of these.

    Args:
        told: names that the statement or the row's tests spell; of others only public ones that stand at base count.
    """
    found: list[Target] = []
    for path, text in gold.items():
        tree = parsed(text or "")
        if text is None or tree is None:
            continue
        changed = changed_functions(base.get(path) or "", text)
        before = set(NAME.findall(base.get(path) or ""))
        every = functions_of(tree)
        classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        wanted = [*changed, *_callers(every, changed)]
        touched = {name.partition(".")[0] for name in wanted} & classes
        wanted += [name for name in every if name.partition(".")[0] in touched and name not in wanted]
        for name in wanted:
            last = name.rpartition(".")[2]
            may = last in told or (last in before and not last.startswith("_")) or last == "__init__"
            outer = name.rpartition(".")[0]
            if may and (not outer or outer in classes) and (made := _target(path, name, every[name])) is not None:
                found.append(replace(made, is_changed=name in changed))
    return found


def _target(path: str, name: str, node: FunctionNode) -> Target | None:
    decorators = {_last(one) for one in node.decorator_list}
    if isinstance(node, ast.AsyncFunctionDef) or "property" in decorators:
        return None
    owner, _, last = name.rpartition(".")
    place = (path, first_line_of(node))
    module = module_of(path)
    if last == "__init__":
        return Target(name=owner, module=module, place=place, node=node, drops=1)
    bound = bool(owner) and not decorators & {"staticmethod", "classmethod"}
    drops = int(bool(owner) and "staticmethod" not in decorators)
    return Target(name=name, module=module, place=place, node=node, owner=owner if bound else "", drops=drops)


def module_of(path: str) -> str:
    for prefix in _SOURCES:
        path = path.removeprefix(prefix)
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _callers(every: Mapping[str, FunctionNode], changed: Collection[str]) -> list[str]:
    """Functions of one file that come to the changed ones, by the names that they use."""
    used = {
        name: {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
        | {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
        for name, node in every.items()
    }
    found: list[str] = []
    reached = {name.rpartition(".")[2] for name in changed}
    for _ in range(CALLERS):
        new = [name for name, names in used.items() if names & reached and name not in (*found, *changed)]
        found += new
        reached = {name.rpartition(".")[2] for name in new}
    return found


def look_at_calls(found: Collection[Target], texts: Collection[str]) -> None:
    """Note what calls in some Python texts give, where it means the same anywhere."""
    by_name: dict[str, list[Target]] = {}
    for one in found:
        by_name.setdefault(one.name.rpartition(".")[2], []).append(one)
    for text in texts:
        tree = parsed(text)
        for call in ast.walk(tree) if tree else ():
            if isinstance(call, ast.Call):
                for target in by_name.get(_last(call), ()):
                    given = _given(target, call)
                    if given is not None:
                        target.see(given)


def examples_in(text: str) -> Iterator[str]:
    """Python in a statement or documentation: after ">>>", in fences and backquotes; whole lines that are calls."""
    for line in text.replace("```", "\n").splitlines():
        code = line.strip().removeprefix(">>>").removeprefix("...").strip()
        yield code.partition("  #")[0]
        for part in line.split("`")[1::2]:
            yield part.strip()
        for mark in ("->", "==", "=>", "#"):  # "f(1) -> 2"
            if mark in code:
                yield code.partition(mark)[0].strip().removeprefix("assert ")


def _given(target: Target, call: ast.Call) -> Given | None:
    names = target.parameters
    given: dict[str, str] = {}
    rest: list[str] = []
    for position, value in enumerate(call.args):
        if not is_free(value) or isinstance(value, ast.Starred):
            return None
        if position < len(names):
            given[names[position]] = ast.unparse(value)
        elif target.node.args.vararg is not None:
            rest.append(ast.unparse(value))
        else:
            return None
    named: list[str] = []
    known = {*names, *(one.arg for one in target.node.args.kwonlyargs)}
    for keyword in call.keywords:
        if keyword.arg is None or not is_free(keyword.value):
            return None
        if keyword.arg in known:
            given[keyword.arg] = ast.unparse(keyword.value)
        else:
            named.append(f"{keyword.arg!r}: {ast.unparse(keyword.value)}")
    if rest:
        given["*"] = f"({', '.join(rest)},)"
    if named:
        given["**"] = f"{{{', '.join(named)}}}"
    return given


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _last(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
