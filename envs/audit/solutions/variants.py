"""Variants of a reference: what they have in common, and what a reference changed."""

import ast
import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ...synthesis.spans import FunctionNode, Text

Files = Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The reference otherwise.

    Attributes:
        kind: what was done: "hunk left out", "comparison", "renamed", …
        what: in a few words, with the names in question.
        files: of the solved repository, those that differ.
    """

    kind: str
    what: str
    files: Files


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """The Python files that a reference changes, before and after it; files that do not parse are left out.

    Attributes:
        statement: what an agent is told.
        known: names that stand anywhere in the repository at base, as far as they were looked for.
    """

    base: Files
    gold: Files
    statement: str = ""
    known: frozenset[str] = frozenset()

    def pairs(self) -> Iterator[tuple[str, str, str]]:
        """(path, text before, text after) of each file that is there after the reference; "" where it is new."""
        for path, text in self.gold.items():
            before = self.base.get(path) or ""
            if text is not None and text != before and parsed(text) is not None and parsed(before) is not None:
                yield path, before, text


def parsed(text: str) -> ast.Module | None:
    """The syntax tree; None where there is none."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return None


def changed_blocks(before: str, after: str) -> list[tuple[int, int, int, int]]:
    """(first, stop) lines before and after, from 0, of each place where two texts differ."""
    matcher = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False)
    return [(i, j, k, m) for tag, i, j, k, m in matcher.get_opcodes() if tag != "equal"]


def changed_lines(before: str, after: str) -> frozenset[int]:
    """Lines of ``after``, from 1, that are new; where something is gone only, the line that follows."""
    lines: set[int] = set()
    for _, _, first, stop in changed_blocks(before, after):
        lines |= set(range(first + 1, stop + 1)) or {first + 1}
    return frozenset(lines)


def functions_of(tree: ast.Module) -> dict[str, FunctionNode]:
    """Functions by their dotted names; of several with one name the last."""
    found: dict[str, FunctionNode] = {}
    pending: list[tuple[ast.AST, str]] = [(tree, "")]
    while pending:
        node, prefix = pending.pop()
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, FunctionNode | ast.ClassDef):
                name = f"{prefix}.{child.name}" if prefix else child.name
            if isinstance(child, FunctionNode):
                found[name] = child
            pending.append((child, name))
    return found


def changed_functions(before: str, after: str) -> dict[str, FunctionNode]:
    """Functions of ``after`` with changed lines of their own, not only of a function inside them, nor only comments."""
    tree, base = parsed(after), parsed(before)
    if tree is None:
        return {}
    old = functions_of(base) if base else {}
    lines = changed_lines(before, after)
    found = functions_of(tree)
    spans = {
        name: set(range(first_line_of(node), (node.end_lineno or node.lineno) + 1)) for name, node in found.items()
    }
    changed = {}
    for name, span in spans.items():
        inner = {line for other, lines_of in spans.items() if other.startswith(f"{name}.") for line in lines_of}
        if (span - inner) & lines and not (name in old and ast.dump(old[name]) == ast.dump(found[name])):
            changed[name] = found[name]
    return changed


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """A function with lines that the reference brings.

    Attributes:
        before, text: the file before and after the reference.
        name: dotted, as ``functions_of`` has it.
        is_new: whether there was no function of this name.
        lines: of the file, those that are new.
    """

    path: str
    before: str
    text: str
    name: str
    node: FunctionNode
    is_new: bool
    lines: frozenset[int]

    def fresh(self) -> Iterator[ast.AST]:
        """The function's nodes that stand on new lines."""
        return (node for node in ast.walk(self.node) if getattr(node, "lineno", 0) in self.lines)

    def variant(self, kind: str, what: str, edits: Iterable[tuple[ast.expr | ast.stmt, str]]) -> Iterator[Variant]:
        """The file with these nodes written otherwise; nothing where it does not parse, nothing is another, or a node
        is not where the parser says it is (some Pythons misplace what stands in f-strings)."""
        edits = list(edits)
        if not all(_stands(self.text, node) for node, _ in edits):
            return
        text = spliced(self.text, edits)
        if text != self.text and parsed(text) is not None:
            yield Variant(kind=kind, what=what, files={self.path: text})


def brought(solved: Solved) -> Iterator[Brought]:
    """Every changed function, with its file."""
    for path, before, text in solved.pairs():
        tree = parsed(before)
        old, lines = functions_of(tree) if tree else {}, changed_lines(before, text)
        for name, node in changed_functions(before, text).items():
            yield Brought(
                path=path, before=before, text=text, name=name, node=node, is_new=name not in old, lines=lines
            )


def _stands(text: str, node: ast.expr | ast.stmt) -> bool:
    try:
        found = ast.parse(f"_ = (\n{Text(text).of(node)}\n)" if isinstance(node, ast.expr) else Text(text).of(node))
    except SyntaxError:
        return False
    (statement,) = found.body
    wanted = statement.value if isinstance(node, ast.expr) and isinstance(statement, ast.Assign) else statement
    return ast.unparse(wanted) == ast.unparse(node)


def spliced(text: str, edits: Iterable[tuple[ast.expr | ast.stmt, str]]) -> str:
    """A source with other text in place of some of its nodes, none of which holds another."""
    source = Text(text)
    data = source.data
    for node, other in sorted(edits, key=lambda edit: source.start(edit[0]), reverse=True):
        data = data[: source.start(node)] + other.encode() + data[source.end(node) :]
    return data.decode()


def first_line_of(node: FunctionNode) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def returns_of(node: FunctionNode) -> list[ast.Return]:
    """What a function gives back, and no function within it does."""
    functions = (one for one in ast.walk(node) if isinstance(one, FunctionNode | ast.Lambda) and one is not node)
    inner = {id(part) for one in functions for part in ast.walk(one)}
    return [one for one in ast.walk(node) if isinstance(one, ast.Return) and id(one) not in inner]


def defaults_of(node: FunctionNode) -> list[tuple[ast.arg, ast.expr]]:
    """The parameters that have a default, each with it."""
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    count = len(positional) - len(arguments.defaults)
    by_name = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return [
        *zip(positional[count:], arguments.defaults, strict=True),
        *((one, default) for one, default in by_name if default is not None),
    ]


def begun_with(text: str, node: FunctionNode, line: str) -> str | None:
    """A source with a line before a function's first that is no documentation; None where there is no place for it."""
    body = node.body[ast.get_docstring(node, clean=False) is not None :]
    if not body or body[0].lineno == node.lineno:
        return None
    first = min([body[0].lineno, *(one.lineno for one in getattr(body[0], "decorator_list", ()))])
    found = with_lines(text, first, first, f"{' ' * body[0].col_offset}{line}{lines_of(text, first, first)}")
    return None if parsed(found) is None else found


def with_lines(text: str, first: int, last: int, replacement: str) -> str:
    """A text whose lines from ``first`` to ``last``, from 1, are replaced."""
    lines = text.splitlines(keepends=True)
    return "".join([*lines[: first - 1], replacement, *lines[last:]])


def lines_of(text: str, first: int, last: int) -> str:
    return "".join(text.splitlines(keepends=True)[first - 1 : last])


def diff_of(gold: Files, files: Files, *, most: int = 1200) -> str:
    """What a variant differs in from the reference, as a unified diff, cut at ``most`` characters."""
    shown = []
    for path, text in files.items():
        old, new = (gold.get(path) or "").splitlines(), (text or "").splitlines()
        shown += difflib.unified_diff(old, new, f"reference/{path}", f"variant/{path}", lineterm="", n=1)
    return "\n".join(shown)[:most]


def is_new(variant: Files, gold: Files, base: Files) -> bool:
    """Whether a variant is neither the reference nor the repository without it, as far as the parser can tell."""

    def same(one: str | None, other: str | None) -> bool:
        first, second = parsed(one or ""), parsed(other or "")
        if first is None or second is None:
            return one == other
        return ast.dump(first) == ast.dump(second)

    is_gold = all(same(text, gold.get(path)) for path, text in variant.items())
    is_base = all(same(variant.get(path, gold[path]), base.get(path)) for path in gold)
    return not is_gold and not is_base
