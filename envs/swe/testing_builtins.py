"""Builtins of test files, bound when the files are compiled: a ``sum`` or ``len`` that somebody puts in their place
while a test runs, and takes away again before anybody looks, is not what the test calls.

A builtin's name is compiled as a constant, and the constant is the object itself: no module, frame or dictionary leads
to it. Part of the program that runs in the sandbox (``testing_guest.py``): standard library only.
"""

import ast
import builtins
import re
import warnings
from types import CodeType
from typing import Any

# No function that looks at the frame of its caller, does input or output, or runs code.
_NAMES = """
    abs all any ascii bin bool bytearray bytes callable chr complex dict divmod enumerate filter float format frozenset
    getattr hasattr hash hex id int isinstance issubclass iter len list map max min next oct ord pow range repr
    reversed round set slice sorted str sum tuple type zip
"""
REAL = {name: getattr(builtins, name) for name in _NAMES.split()}
_MARK = "\0builtin "
# Files that take code apart would see the constants.
_TAKES_CODE_APART = re.compile(
    rb"co_consts|marshal|cloudpickle|\bdill\b|numba|\bn?jit\b|\bdis\b|bytecode|co_code|co_names"
)
_COMPILE = compile


def bindable(tree, text):
    """Names of builtins that mean themselves all over a file: it binds none of them, nor is one named in a string."""
    if _TAKES_CODE_APART.search(text):
        return frozenset()
    bound = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            bound.add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, (ast.Global, ast.Nonlocal)):
            bound.update(node.names)
        else:
            # Definitions, handlers of exceptions, patterns.
            bound.update(
                name for name in (getattr(node, key, None) for key in ("name", "rest")) if isinstance(name, str)
            )
    if "*" in bound:
        return frozenset()
    # mock.patch("builtins.len"), monkeypatch.setattr(module, "len", ...)
    named = {match.decode() for match in re.findall(rb"[\"'.](\w+)[\"']", text)}
    return frozenset(REAL.keys() - bound - named)


def compiled(tree, path, names, flags=0):
    """The code of a module, its builtins of these names bound."""
    if not names:
        return _COMPILE(tree, path, "exec", flags=flags, dont_inherit=True)
    tree = _Binder(names).visit(tree)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a constant that is called, or compared by "is"
        code = _COMPILE(tree, path, "exec", flags=flags, dont_inherit=True)
    return _bound(code)


class _Binder(ast.NodeTransformer):
    def __init__(self, names):
        self._names = names

    def visit_Name(self, node):
        is_meant = isinstance(node.ctx, ast.Load) and node.id in self._names
        return ast.copy_location(ast.Constant(_MARK + node.id), node) if is_meant else node

    def visit_arg(self, node):
        return node  # annotations may be kept as text

    def visit_AnnAssign(self, node):
        node.value = self.visit(node.value) if node.value is not None else None
        return node

    def visit_FunctionDef(self, node: Any) -> Any:
        returns, node.returns = node.returns, None
        self.generic_visit(node)
        node.returns = returns
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_match_case(self, node):
        node.guard = self.visit(node.guard) if node.guard is not None else None
        node.body = [self.visit(statement) for statement in node.body]
        return node


def _bound(constant):
    """A constant with builtins in the place of their marks."""
    if isinstance(constant, CodeType):
        return constant.replace(co_consts=tuple(map(_bound, constant.co_consts)))
    if isinstance(constant, str) and constant.startswith(_MARK):
        return REAL[constant[len(_MARK) :]]
    if type(constant) in (tuple, frozenset):
        return type(constant)(map(_bound, constant))
    return constant
