"""Whether two programs are the same but for their names and for the call that is traced."""

import ast
import symtable
from collections import Counter
from collections.abc import Container, Iterator

from ...model.chat.trace import START_MARKER
from .renaming import Functions, Renamed

_COUNTED = (ast.Return, ast.AugAssign, ast.For, ast.While, ast.If, ast.With, ast.Raise, ast.Try, ast.Assert, ast.Import)
_COUNTED += (ast.ImportFrom, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Yield)
"""What neither names nor docstrings nor annotations change the number of."""
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
    found = {}
    for node in _definitions(source):
        try:
            found[_key(ast.Module(body=[node], type_ignores=[]))] = node.name
        except UNREADABLE:
            continue
    return found


def keys_in(source: str, shapes: Container[str]) -> Iterator[str]:
    """The ``twin_key`` of a program, of each function and class in it, and of what stands in its functions without
    required arguments and in its ``if`` statements: a script is the same in ``def main():`` and by itself.

    Args:
        shapes: of keys (``shape_of``); others are not made, which is dear.
    """
    try:
        tree = ast.parse(source)
    except UNREADABLE:
        return
    tree.body = [node for node in tree.body if not _only_calls(node, source)]
    parts = [tree.body, *([node] for node in _definitions(source))]
    scripts = (node for node in ast.walk(tree) if isinstance(node, (ast.If, *Functions)))
    parts += [node.body for node in scripts if isinstance(node, ast.If) or not _is_given(node.args)]
    for part in parts:
        module = ast.Module(body=part, type_ignores=[])
        if _shape(module) in shapes:
            try:
                yield _key(module)
            except UNREADABLE:
                continue


def shape_of(key: str) -> str:
    """What a key begins with: how many statements of each kind a program has."""
    return key.partition("|")[0]


def _shape(tree: ast.AST) -> str:
    counts = Counter(type(node) for node in ast.walk(tree))
    return ".".join(str(counts[kind]) for kind in _COUNTED)


def _definitions(source: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    try:
        nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, (*Functions, ast.ClassDef))]
    except UNREADABLE:
        return []
    kept = [node for node in nodes if not _only_calls(node, source)]
    for node in kept:
        node.decorator_list = []
    return kept


def _is_given(arguments: ast.arguments) -> bool:
    return len(arguments.posonlyargs) + len(arguments.args) > len(arguments.defaults)


def _only_calls(node: ast.AST, context: str) -> bool:
    """Whether this is the function that ``run.context_of`` adds."""
    if not isinstance(node, ast.FunctionDef) or not (len(node.body) == 1 and isinstance(node.body[0], ast.Return)):
        return False
    return context.split("\n")[node.lineno - 1] == f"def {node.name}():{START_MARKER}"


def _key(tree: ast.Module) -> str:
    source = ast.unparse(_Bare().visit(tree))  # so that lines are those of the symbol table
    tree = ast.parse(source)
    return _shape(tree) + "|" + ast.dump(Renamed(tree, symtable.symtable(source, "program", "exec")).visit(tree))


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
