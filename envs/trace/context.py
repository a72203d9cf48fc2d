"""The source context of a recorded call: the functions it entered, as they stand in their files."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...model.chat.trace import START_MARKER

Function = tuple[str, int]
"""(file, first line of its code: that of its first decorator)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    lines: tuple[str, ...]
    heads: dict[int, int]
    """First line of a decorated definition -> its ``def`` or ``class``."""
    blocks: tuple[tuple[int, int, tuple[int, ...]], ...]
    """(first line, last line, lines of the classes around it) of each statement that no function holds."""

    def block(self, line: int) -> tuple[int, int, tuple[int, ...]]:
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
        files: dict[str, set[tuple[int, int, tuple[int, ...]]]] = {entry[0]: set()}
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


def _text_of(file: _File, blocks: Iterable[tuple[int, int, tuple[int, ...]]], marked: int) -> list[str]:
    """Lines of blocks, each class above its methods once."""
    text: list[str] = []
    shown: set[int] = set()
    for start, end, classes in sorted(blocks):
        text += [""] if text else []
        numbers = [*(line for line in classes if line not in shown), *range(start, end + 1)]
        shown |= {*classes, *range(start, end + 1)}
        text += [file.lines[number - 1] + (START_MARKER if number == marked else "") for number in numbers]
    return text


def _read(path: Path) -> _File:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    heads = {
        min(one.lineno for one in node.decorator_list): node.lineno
        for node in ast.walk(tree)
        if isinstance(node, definitions) and node.decorator_list
    }
    blocks: list[tuple[int, int, tuple[int, ...]]] = []
    _collect(tree.body, (), blocks)
    return _File(lines=tuple(text.split("\n")), heads=heads, blocks=tuple(blocks))


def _collect(
    body: Iterable[ast.stmt], classes: tuple[int, ...], blocks: list[tuple[int, int, tuple[int, ...]]]
) -> None:
    for node in body:
        if isinstance(node, ast.ClassDef):
            _collect(node.body, (*classes, node.lineno), blocks)
            continue
        inner = [part for name in ("body", "orelse", "finalbody") for part in getattr(node, name, ())]
        if isinstance(node, ast.If | ast.Try | ast.With) and any(isinstance(part, ast.stmt) for part in inner):
            _collect([part for part in inner if isinstance(part, ast.stmt)], classes, blocks)
            continue
        decorators = [one.lineno for one in getattr(node, "decorator_list", ())]
        blocks.append((min([node.lineno, *decorators]), node.end_lineno or node.lineno, classes))
