"""Whether two programs are the same but for their names and for the call that is traced."""

import ast
import re
import symtable
import textwrap
from collections.abc import Iterator

from ...model.chat.trace import START_MARKER
from .renaming import Functions, Renamed

UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


def twin_key(context: str) -> str:
    """Equal for programs that differ in names, comments, docstrings, annotations and layout alone.

    Names are told apart by the scopes that own them: variables, parameters (also where a call names them), functions,
    classes, imports, and the attributes that the program itself gives. Built-ins and others' attributes keep theirs.

    Args:
        context: of a trace, or a program. The function that only makes the traced call does not count, so a function
            has the same key whatever it is called with.
    """
    try:
        tree = ast.parse(context)
        tree.body = [node for node in tree.body if not _only_calls(node, context)]
        return _key(tree)
    except UNREADABLE:
        return context


def function_keys(source: str) -> dict[str, str]:
    """The ``twin_key`` of each function and class of a program by itself: its key -> its name.

    A held-out function is found so in another file, in a class, or among others.
    """
    try:
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (*Functions, ast.ClassDef))]
    except UNREADABLE:
        return {}
    found = {}
    for node in nodes:
        if not _only_calls(node, source):
            node.decorator_list = []
            try:
                found[_key(ast.Module(body=[node], type_ignores=[]))] = node.name
            except UNREADABLE:
                continue
    return found


_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_OPENS = re.compile(r"(?m)^([ \t]*)(?:@|(?:async[ \t]+)?def[ \t]|class[ \t])")


def programs_in(text: str) -> Iterator[str]:
    """Pieces of a text that may be programs: the whole, what stands in fences, and each run of definitions."""
    yield text
    yield from (match[1] for match in _FENCE.finditer(text))
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        opened = _OPENS.match(lines[at])
        end = at + 1
        if opened:
            while end < len(lines) and _goes_on(lines[end], len(opened[1])):
                end += 1
            yield textwrap.dedent("\n".join(lines[at:end])) + "\n"
        at = end


def _goes_on(line: str, indent: int) -> bool:
    """Whether a line belongs to the definition that an earlier line of this indentation begins."""
    return not line.strip() or len(line) - len(line.lstrip()) > indent or bool(_OPENS.match(line))


def _only_calls(node: ast.AST, context: str) -> bool:
    """Whether this is the function that ``run.context_of`` adds."""
    if not isinstance(node, ast.FunctionDef) or not (len(node.body) == 1 and isinstance(node.body[0], ast.Return)):
        return False
    return context.split("\n")[node.lineno - 1] == f"def {node.name}():{START_MARKER}"


def _key(tree: ast.Module) -> str:
    source = ast.unparse(_Bare().visit(tree))  # so that lines are those of the symbol table
    tree = ast.parse(source)
    return ast.dump(Renamed(tree, symtable.symtable(source, "program", "exec")).visit(tree))


class _Bare(ast.NodeTransformer):
    """Without what changes nothing that a function does: docstrings, ``pass`` and lone constants among statements,
    annotations (those in the body of a class may make fields), the ``u`` of a text."""

    def __init__(self) -> None:
        self._in_class = False

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
                kept = [one for one in block if not _does_nothing(one)]
                setattr(node, field, kept or [ast.Pass()] * (field != "orelse"))
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        around, self._in_class = self._in_class, False
        self.generic_visit(node)
        self._in_class = around
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        around, self._in_class = self._in_class, True
        self.generic_visit(node)
        self._in_class = around
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        if self._in_class:
            return node
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value, lineno=node.lineno), node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        node.kind = None
        return node


def _does_nothing(statement: ast.stmt) -> bool:
    """Whether it is no part of what a program does by itself: ``__all__`` is for others."""
    if isinstance(statement, ast.Assign):
        return any(isinstance(one, ast.Name) and one.id == "__all__" for one in statement.targets)
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )
