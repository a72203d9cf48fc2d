"""Bugs put into Python source by syntax-tree operators.

All but what an operator replaces stays byte for byte, comments and formatting included. Only code inside functions is
touched, never docstrings, annotations, decorators, f-strings (their positions are unreliable before Python 3.12) or the
arguments of ``raise`` and ``assert``.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ...errors import TaskError
from .operators import OPERATORS, Operator, Site, is_range
from .spans import FunctionNode, Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One bug: a span of the source and what takes its place.

    Attributes:
        operator: the operator's name, a key of ``OPERATORS``.
        lineno, end_lineno: first and last line of the original that the span touches, from 1.
        qualname: dotted name of the innermost function ("Cache.pop"; inner functions follow their outer one).
        function_lineno: line of that function's ``def``.
        start, end: the span, in bytes of the UTF-8 source.
        replacement: the text put there; empty where whole lines are removed.
    """

    operator: str
    lineno: int
    end_lineno: int
    qualname: str
    function_lineno: int
    start: int
    end: int
    replacement: str

    def apply(self, source: str) -> str:
        """The source with the bug in it."""
        data = source.encode()
        return (data[: self.start] + self.replacement.encode() + data[self.end :]).decode()

    def is_change(self, source: str) -> bool:
        """Whether the source still parses with the bug, to another tree."""
        try:
            return ast.dump(ast.parse(self.apply(source))) != ast.dump(ast.parse(source))
        except SyntaxError:
            return False


def mutations(source: str, operators: Mapping[str, Operator] = OPERATORS) -> list[Mutation]:
    """Every bug the operators can put into a source, in the order of the text.

    Each one parses and has another syntax tree than the original.

    Raises:
        TaskError: the source is not valid Python.
    """
    text, original = Text(source), dict[int, str]()
    sites = {function.node.lineno: function for _, function in _sites(_parsed(source))}
    return [
        mutation
        for mutation in proposals(source, operators)
        if _changes_function(text, sites[mutation.function_lineno], mutation, original)
    ]


def proposals(source: str, operators: Mapping[str, Operator] = OPERATORS) -> list[Mutation]:
    """``mutations`` and edits that are none after all: ``Mutation.is_change`` of each takes ten times as long, where a
    few are wanted of thousands.

    Raises:
        TaskError: the source is not valid Python.
    """
    tree = _parsed(source)
    text = Text(source)
    found: dict[tuple[int, int, str], Mutation] = {}
    for node, function in _sites(tree):
        for name, operator in operators.items():
            for edit in operator(node, text, function):
                key = (edit.start, edit.end, edit.replacement)
                if key in found:
                    continue
                found[key] = Mutation(
                    operator=name,
                    lineno=text.line_of(edit.start),
                    end_lineno=text.line_of(max(edit.start, edit.end - 1)),
                    qualname=function.qualname,
                    function_lineno=function.node.lineno,
                    start=edit.start,
                    end=edit.end,
                    replacement=edit.replacement,
                )
    return sorted(found.values(), key=lambda mutation: (mutation.start, mutation.end, mutation.replacement))


def _parsed(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise TaskError(f"a source that is to get a bug does not parse: {error}; leave the file out") from None


def _changes_function(text: Text, function: Site, edit: Mutation, original: dict[int, str]) -> bool:
    """Whether the function still parses with the edit, to another tree.

    Only the function is parsed: thousands of edits of a long module would otherwise take minutes.
    """
    node = function.node
    assert node.end_lineno is not None
    first, stop = text.lines(node.lineno, node.end_lineno)
    header = b"" if node.col_offset == 0 else b"if 1:\n"
    if node.lineno not in original:
        original[node.lineno] = ast.dump(ast.parse(header + text.data[first:stop]))
    changed = header + text.data[first : edit.start] + edit.replacement.encode() + text.data[edit.end : stop]
    try:
        return ast.dump(ast.parse(changed)) != original[node.lineno]
    except SyntaxError:
        return False


def _sites(tree: ast.Module) -> Iterator[tuple[ast.AST, Site]]:
    """The nodes that operators may look at, each with its innermost function."""
    pending: list[tuple[ast.AST, str, Site | None]] = [(tree, "", None)]
    while pending:
        node, prefix, function = pending.pop()
        if isinstance(node, FunctionNode | ast.ClassDef):
            prefix = f"{prefix}.{node.name}" if prefix else node.name
        if isinstance(node, FunctionNode):
            function = Site(node, prefix, _first_bindings(node))
        if function is not None:
            yield node, function
        pending += [(child, prefix, function) for child in _children(node)]


def _children(node: ast.AST) -> list[ast.AST]:
    """The children in which bugs may be put."""
    if isinstance(node, ast.JoinedStr | ast.Raise | ast.Assert | ast.Import | ast.ImportFrom):
        return []
    if isinstance(node, FunctionNode):
        return [*node.args.defaults, *(default for default in node.args.kw_defaults if default), *node.body]
    if isinstance(node, ast.ClassDef):
        return list(node.body)
    if isinstance(node, ast.AnnAssign):
        return [node.value] if node.value else []
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.Slice) or is_range(node):
        # Plain constants there are slice_bound's.
        children = [child for child in children if not isinstance(child, ast.Constant)]
    return children


def _first_bindings(node: FunctionNode) -> dict[str, int]:
    """Line at which each name of a function is first bound; parameters at the ``def``."""
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    bound = {argument.arg: node.lineno for argument in every if argument}
    for child in ast.walk(node):
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            bound[child.id] = min(bound.get(child.id, child.lineno), child.lineno)
    return bound
