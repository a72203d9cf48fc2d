"""Twins of test functions: the same test, made to fail by a means of its own.

A twin that fails by a bare ``raise`` shows that a test's outcome is reported; it does not show that its assertions
assert. So each means that a test uses (an assertion of a form, a helper of unittest or numpy, ``pytest.raises``) gets
a statement that fails by it (``twin_means.py``), and operands of its comparisons give way to values that must not hold
(``twin_operands.py``). Part of the program that runs in the sandbox, and used by the host: standard library only,
Python 3.8 or later.
"""

import ast
import copy
from typing import Any

from .twin_means import asserting, has_docstring, leaves_early, means_of
from .twin_operands import OLD, operands_of


def choose(function, number):
    """What the twin of a number does; consecutive ones take the ways there are in turn, and those below 0 fail at once.

    Returns:
        (failing statement, "start" or "end", None), (failing statement, "instead", the statement that it replaces), or
        (another value, "operand", the operand that it replaces).
    """
    means, operands, replaced = means_of(function), operands_of(function), asserting(function)
    if number < 0:
        return means[-number % len(means)], "start", None
    turn, place = divmod(number, len(means) + bool(operands) + bool(replaced))
    if place == len(means) and operands:
        node, text_of = operands[turn % len(operands)]
        return text_of(node, number), "operand", node
    if place >= len(means):
        statement, text = replaced[turn % len(replaced)]
        return text, "instead", statement
    # Where names are imported inside the function, they are not there yet at its start.
    local = any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(function))
    return means[place], "end" if local or turn % 4 else "start", None


class _Replace(ast.NodeTransformer):
    def __init__(self, old, new):
        self._old, self._new = old, new

    def visit(self, node):
        return self._new if node is self._old else self.generic_visit(node)


def failing(function, number):
    """A copy of a function's node that fails whatever the code under test does."""
    function = copy.deepcopy(function)
    text, place, old = choose(function, number)
    if old is not None and place == "operand":
        new = ast.parse(text, mode="eval").body
        kept = next((one for one in ast.walk(new) if isinstance(one, ast.Name) and one.id == OLD), None)
        for inner in ast.walk(new):
            ast.copy_location(inner, old)
        return _Replace(old, _Replace(kept, old).visit(new) if kept else new).visit(function)
    statements = ast.parse(text).body
    if old is not None:
        return _Replace(old, ast.copy_location(statements[0], old)).visit(function)
    nodes: Any = [inner for statement in statements for inner in ast.walk(statement)]
    for node in nodes:
        if hasattr(node, "lineno"):
            node.lineno = node.end_lineno = function.lineno
    if place == "start":
        function.body[has_docstring(function) : has_docstring(function)] = statements
    elif leaves_early(function):
        function.body = [ast.Try(body=function.body, handlers=[], orelse=[], finalbody=statements)]
    else:
        function.body += statements
    return function


def alone(chain, function):
    """A module in which a function stands where its chain has it, so that its code has the same free names."""
    node = function
    node.decorator_list = []
    for outer in reversed(chain[:-1]):
        outer_copy = copy.copy(outer)
        if isinstance(outer, ast.ClassDef):
            outer_copy.body, outer_copy.bases, outer_copy.keywords = [node], [], []
            outer_copy.decorator_list = []
        else:
            outer_copy.body = copy.deepcopy(outer.body)
            if not _put(outer_copy.body, node):
                return None
        node = outer_copy
    return ast.fix_missing_locations(ast.Module(body=[node], type_ignores=[]))


def _put(body, node):
    """Put a definition in the place of that of its name and line, in any block."""
    for parent in ast.walk(ast.Module(body=body, type_ignores=[])):
        for name in ("body", "orelse", "finalbody"):
            block: Any = getattr(parent, name, None)
            for place, old in enumerate(block if isinstance(block, list) else ()):
                if type(old) is type(node) and old.name == node.name and old.lineno == node.lineno:
                    block[place] = node
                    return True
    return False
