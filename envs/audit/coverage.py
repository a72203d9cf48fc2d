"""What of a reference the tests of a row can run: the functions that it changes, and their statements."""

import ast
import re
from collections.abc import Mapping

from .solutions.variants import Solved, changed_functions, changed_lines, first_line_of


def changed_code(solved: Solved) -> tuple[dict[tuple[str, int], str], bool]:
    """((path, first line) -> name of the functions that the reference changes, whether it changes lines outside of
    functions too)."""
    found: dict[tuple[str, int], str] = {}
    outside = any(solved.gold[path] is None for path in solved.gold)
    for path, before, after in solved.pairs():
        covered: set[int] = set()
        for name, node in changed_functions(before, after).items():
            found[path, first_line_of(node)] = name
            # A decorator runs while the module is imported: what it does reaches every test.
            covered |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        code = [line for line in changed_lines(before, after) - covered if _is_code(after, line)]
        outside |= bool(code)
    return found, outside


def named_in(statement: str, functions: Mapping[tuple[str, int], str]) -> dict[tuple[str, int], str]:
    """Those of some functions that a statement names as code does: called, as an attribute, within backticks."""

    def is_named(name: str) -> bool:
        return re.search(rf"\b{name}\(|\.{name}\b|`[^`\n]*\b{name}\b[^`\n]*`", statement) is not None

    return {place: name for place, name in functions.items() if is_named(name.rpartition(".")[2])}


def _is_code(text: str, line: int) -> bool:
    lines = text.splitlines()
    stripped = lines[line - 1].strip() if line <= len(lines) else ""
    return bool(stripped) and not stripped.startswith(("#", "import ", "from ", '"""', "'''"))


_NO_CODE = (ast.Global, ast.Nonlocal, ast.Pass, ast.Continue)
"""Statements without a line of their own in the byte code of some Python."""


def executable_spans(solved: Solved) -> list[tuple[str, int, int]]:
    """(path, first line, last line) of the statements of changed functions in which the reference changes something; of
    one with others in it what stands before them. It has run where any of these lines has: of ``if (`` with its
    condition below, Python runs the condition's lines alone."""
    found: set[tuple[str, int, int]] = set()
    for path, before, after in solved.pairs():
        lines = changed_lines(before, after)
        for node in changed_functions(before, after).values():
            for one in (part for statement in node.body for part in ast.walk(statement) if isinstance(part, ast.stmt)):
                is_doc = isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
                is_hint = isinstance(one, ast.AnnAssign) and one.value is None
                first, last = one.lineno, max(one.lineno, _last_line(one))
                if not (is_doc or is_hint or isinstance(one, _NO_CODE)) and not lines.isdisjoint(
                    range(first, last + 1)
                ):
                    found.add((path, first, last))
    return sorted(found)


def _last_line(one: ast.stmt) -> int:
    inner = getattr(one, "body", None) or getattr(one, "cases", None)
    if not inner:
        return one.end_lineno or one.lineno
    first = inner[0].pattern if isinstance(inner[0], ast.match_case) else inner[0]
    decorators = getattr(first, "decorator_list", [])
    return min([first.lineno, *(decorator.lineno for decorator in decorators)]) - 1
