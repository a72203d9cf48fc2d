"""What of a reference the tests of a row can run: the functions that it changes, and their statements."""

import ast

from .variants import Solved, changed_functions, changed_lines, first_line_of


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


def _is_code(text: str, line: int) -> bool:
    lines = text.splitlines()
    stripped = lines[line - 1].strip() if line <= len(lines) else ""
    return bool(stripped) and not stripped.startswith(("#", "import ", "from ", '"""', "'''"))


def executable_lines(solved: Solved) -> list[tuple[str, int]]:
    """First lines of the statements of changed functions in which the reference changes something."""
    found = []
    for path, before, after in solved.pairs():
        lines = changed_lines(before, after)
        for node in changed_functions(before, after).values():
            for one in (part for statement in node.body for part in ast.walk(statement) if isinstance(part, ast.stmt)):
                is_doc = isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)
                compound = hasattr(one, "body")  # its first line alone; the rest is of others
                last = one.lineno if compound else one.end_lineno or one.lineno
                if not is_doc and not lines.isdisjoint(range(one.lineno, last + 1)):
                    found.append((path, one.lineno))
    return sorted(set(found))
