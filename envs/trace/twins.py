"""Whether two programs are the same but for their names and for the call that is traced."""

import ast
import builtins

from ...model.chat.trace import START_MARKER

BUILT_IN = frozenset(dir(builtins))


def twin_key(context: str) -> str:
    """Equal for programs that differ in names, comments and layout alone.

    Args:
        context: of a trace, or a program. The function that only makes the traced call does not count, so a function
            has the same key whatever it is called with.
    """
    try:
        tree = ast.parse(context)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return context
    tree.body = [node for node in tree.body if not _only_calls(node, context)]
    return ast.dump(_Renamed().visit(tree))


def _only_calls(node: ast.stmt, context: str) -> bool:
    """Whether this is the function that ``run.context_of`` adds."""
    if not isinstance(node, ast.FunctionDef) or not (len(node.body) == 1 and isinstance(node.body[0], ast.Return)):
        return False
    return context.split("\n")[node.lineno - 1] == f"def {node.name}():{START_MARKER}"


class _Renamed(ast.NodeTransformer):
    """Names become numbers, in the order in which they are met; those of built-ins and attributes stay."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def _name(self, name: str) -> str:
        return name if name in BUILT_IN else self._names.setdefault(name, f"_{len(self._names)}")

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._name(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._name(node.arg)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self._name(node.name)
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._name(node.name)
        return self.generic_visit(node)
