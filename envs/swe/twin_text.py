"""Twins as text: a test file in which some functions fail, everything else as it is written."""

import ast

from .twin_means import definitions, has_docstring, leaves_early
from .twin_operands import OLD
from .twins import choose


def twin_text(text, numbers):
    """A file's text in which functions fail, everything else as it is written.

    Args:
        text: of a Python file.
        numbers: (names, ...) of functions, as in ("Class", "method") -> number of the twin.
    Returns:
        (text, the functions found).
    Raises:
        SyntaxError, ValueError, RecursionError: it is no Python.
    """
    changes, found = [], set()
    lines = text.split("\n")
    for chain in definitions(ast.parse(text)):
        names = tuple(node.name for node in chain)
        if names in numbers:
            found.add(names)
            changes.append((chain[-1], numbers[names]))
    for function, number in sorted(changes, key=lambda change: -change[0].lineno):
        written, place, old = choose(function, number)
        if old is None:
            _insert(lines, function, written, place)
        else:
            _overwrite(lines, old, written.replace(OLD, ast.unparse(old) if OLD in written else ""))
    return "\n".join(lines), found


def _insert(lines, function, statement, place):
    first, last = function.body[0], function.body[-1]
    if place == "start" and has_docstring(function) and len(function.body) > 1:
        first = function.body[1]
    top = min([first.lineno, *(one.lineno for one in getattr(first, "decorator_list", ()))])
    line = lines[top - 1]
    margin = line[: len(line) - len(line.lstrip())]
    if first.lineno == function.body[0].lineno and _stands_after_colon(line, first):
        # def f(): x  ->  the body gets lines of its own
        head = _bytes(line)
        margin += "    "
        cut = [head[: first.col_offset], head[first.col_offset :]]
        front, rest = (part.decode("utf-8", errors="surrogateescape") for part in cut)
        lines[top - 1 : top] = [front.rstrip(), *_indented(statement, margin), margin + rest]
    elif place == "start":
        lines[top - 1 : top - 1] = _indented(statement, margin)
    elif leaves_early(function):
        # ``finally`` without moving a line that may be part of a string
        lines[top - 1 : top - 1] = _indented(statement, margin)
    else:
        lines[last.end_lineno : last.end_lineno] = _indented(statement, margin)


def _overwrite(lines, node, text):
    """Put text in the place of an expression or a statement; the lines keep their number."""
    first, last = (_bytes(lines[n - 1]) for n in (node.lineno, node.end_lineno))
    before, after = first[: node.col_offset], last[node.end_col_offset :]
    empty = [""] * (node.end_lineno - node.lineno)
    if len(text.encode()) == node.end_col_offset - node.col_offset:
        text += " "  # a file of the same size within the same second would be taken for the old one by its byte code
    joined = (before + text.encode() + after).decode("utf-8", errors="surrogateescape")
    lines[node.lineno - 1 : node.end_lineno] = [joined, *empty]


def _bytes(line):
    return line.encode("utf-8", errors="surrogateescape")


def _stands_after_colon(line, first):
    return _bytes(line)[: first.col_offset].strip() != b""


def _indented(statement, margin):
    return [margin + line for line in statement.split("\n")]
