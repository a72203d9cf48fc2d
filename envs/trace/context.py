"""The source context of a recorded call: the functions it entered, as they stand in their files."""

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...model.chat.trace import START_MARKER
from .source_text import read_source

Function = tuple[str, int]
"""(file, first line of its code: that of its first decorator)."""
_Block = tuple[int, int, tuple[int, ...]]
"""(first line, last line, lines of the heads of the classes around it) of a statement that no function holds."""
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    lines: tuple[str, ...]
    heads: dict[int, int]
    """First line of a decorated definition -> its ``def`` or ``class``."""
    blocks: tuple[_Block, ...]

    def block(self, line: int) -> _Block:
        for block in self.blocks:
            if block[0] <= line <= block[1]:
                return block
        return line, line, ()


class SourceTree:
    """Lines of a library's files."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: dict[str, _File] = {}

    def line(self, file: str, line: int, *, entering: bool) -> str:
        """A line with its line break; a function that is entered stands at its ``def``."""
        found = self._file(file)
        number = found.heads.get(line, line) if entering else line
        return found.lines[number - 1] + "\n" if 1 <= number <= len(found.lines) else "\n"

    def context(self, entry: Function, entered: Iterable[Function]) -> str:
        """The functions, in the order of their files and lines, the entry's file first; the entry has the marker."""
        files: dict[str, set[_Block]] = {entry[0]: set()}
        for name, line in [entry, *entered]:
            files.setdefault(name, set()).add(self._file(name).block(line))
        parts = []
        for name, blocks in files.items():
            file = self._file(name)
            head = file.heads.get(entry[1], entry[1]) if name == entry[0] else 0
            parts.append("\n".join([f"# {name}", *_text_of(file, blocks, head)]))
        return "\n\n".join(parts) + "\n"

    def _file(self, name: str) -> _File:
        if name not in self._files:
            self._files[name] = _read(self._root / name)
        return self._files[name]


def _text_of(file: _File, blocks: Iterable[_Block], marked: int) -> list[str]:
    """Lines of blocks, each class above its methods once."""
    text: list[str] = []
    shown: set[int] = set()
    for start, end, classes in sorted(blocks):
        text += [""] if text else []
        heads = [line for line in classes if line not in shown and not start <= line <= end]  # a class may be one line
        numbers = [*heads, *range(start, end + 1)]
        shown |= {*classes, *range(start, end + 1)}
        text += [file.lines[number - 1] + (START_MARKER if number == marked else "") for number in numbers]
    return text


def _read(path: Path) -> _File:
    text = read_source(path)
    tree = ast.parse(text)
    lines = tuple(text.split("\n"))
    heads = {
        min(one.lineno for one in node.decorator_list): node.lineno
        for node in ast.walk(tree)
        if isinstance(node, DEFINITIONS) and node.decorator_list
    }
    blocks: list[_Block] = []
    _collect(tree.body, (), lines, blocks)
    return _File(lines=lines, heads=heads, blocks=tuple(blocks))


def _collect(body: Iterable[ast.stmt], classes: tuple[int, ...], lines: Sequence[str], blocks: list[_Block]) -> None:
    """Statements of a body; of compound ones, whichever they are, those within, and the lines between as they stand."""
    for node in body:
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
        last = node.end_lineno or node.lineno
        inner = [] if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else _statements_in(node)
        if not inner:
            blocks.append((first, last, classes))
            continue
        within = classes
        if isinstance(node, ast.ClassDef):
            within = (*classes, *range(node.lineno, _end_of_head(node, lines) + 1))
        before = len(blocks)
        _collect(inner, within, lines, blocks)
        taken = {number for start, end, _ in blocks[before:] for number in range(start, end + 1)}
        blocks += [(start, end, classes) for start, end in _runs(set(range(first, last + 1)) - taken)]


def _statements_in(node: ast.AST) -> list[ast.stmt]:
    """The statements right within one, wherever the grammar has them: bodies, handlers, cases."""
    found: list[ast.stmt] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            found.append(child)
        elif not isinstance(child, ast.expr):
            found += _statements_in(child)
    return found


def _end_of_head(node: ast.ClassDef, lines: Sequence[str]) -> int:
    """The line with the colon of a class."""
    end = max([node.lineno, *(one.end_lineno or 0 for one in (*node.bases, *node.keywords))])
    while end < node.body[0].lineno - 1 and not lines[end - 1].partition("#")[0].rstrip().endswith(":"):
        end += 1
    return end


def _runs(numbers: set[int]) -> list[tuple[int, int]]:
    """(first, last) of each run of numbers without a gap."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
