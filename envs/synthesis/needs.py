"""What the tests of a tree need besides what its metadata says: files of requirements, tables of pyproject.toml, tox,
setup.py, their imports.

Nothing is run. Of lists that developers keep, only what the tests import, and plugins of pytest, is taken: the rest
builds documentation and checks style.
"""

import ast
import configparser
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

KNOWN = {
    **{name: name for name in ("ddt", "freezegun", "hypothesis", "mock", "parameterized", "pytz", "responses", "six")},
    **{name: name for name in ("sybil", "testfixtures", "time_machine", "toml", "tomli", "pretend", "flaky")},
    **{"faker": "Faker", "pytest_mock": "pytest-mock", "dateutil": "python-dateutil", "yaml": "PyYAML"},
    **{"attr": "attrs", "attrs": "attrs", "typing_extensions": "typing-extensions", "hamcrest": "pyhamcrest"},
}
"""Module -> the project that brings it, of what tests commonly import and do not declare."""

NOT_FOR_TESTS = frozenset(
    canonicalize_name(f"pytest-{name}")
    for name in ("black", "checkdocs", "cov", "enabler", "flake8", "isort", "mypy", "pep8", "perf", "pylint", "ruff")
) | {"pytest-sugar", "pytest-xdist"}
_OF_TESTS = re.compile(r"test|dev|ci\b", re.I)
_NAMES_NEEDS = re.compile(r"dep|group|extra|package|require", re.I)
_MOST_FILES = 20
_UNREADABLE = (OSError, SyntaxError, ValueError, RecursionError, MemoryError)


def needed_by_tests(root: Path, test_files: Sequence[str], declared: Iterable[str]) -> list[str]:
    """Requirements that the tests have beyond the declared ones.

    Args:
        root: of the tree; nothing of it runs.
        test_files: relative paths, of which the imports count, and those of every conftest.py.
        declared: requirements that are there already.
    Returns:
        as pip takes them, without markers and exact versions; what only an import says comes last.
    """
    there = {canonicalize_name(one.name) for one in _parsed(declared)} | {"pytest"}
    imported = imported_by(root, [*test_files, *_conftests(root)])
    found: dict[str, str] = {}
    for requirement in _parsed([*_from_files(root), *_from_toml(root), *_from_tox(root), *_from_setup(root)]):
        name = canonicalize_name(requirement.name)
        wanted = _module(name) in imported or any(KNOWN.get(module) == requirement.name for module in imported)
        plugin = name.startswith("pytest-") and name not in NOT_FOR_TESTS
        if (wanted or plugin) and name not in there and requirement.url is None:
            requirement.marker = None
            if "==" in str(requirement.specifier):  # of years ago, for a Python and a pytest of then
                requirement.specifier = SpecifierSet()
            found.setdefault(name, str(requirement))
    for module in sorted(imported & KNOWN.keys()):
        name = canonicalize_name(KNOWN[module])
        if name not in there:
            found.setdefault(name, KNOWN[module])
    return list(found.values())


def imported_by(root: Path, files: Iterable[str]) -> set[str]:
    """Top-level modules that files import and neither Python nor the tree has; those in ``try`` are left out."""
    own = {path.stem for path in root.rglob("*.py")} | {path.parent.name for path in root.rglob("__init__.py")}
    found: set[str] = set()
    for path in dict.fromkeys(files):
        try:
            tree = ast.parse((root / path).read_bytes())
        except _UNREADABLE:
            continue
        for node in _certain(tree):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - own - sys.stdlib_module_names


def _certain(tree: ast.AST) -> Iterable[ast.AST]:
    """Nodes outside ``try``: what an import there brings can be done without."""
    queue = [tree]
    while queue:
        node = queue.pop()
        if not isinstance(node, ast.Try):
            yield node
            queue += ast.iter_child_nodes(node)


def _module(name: str) -> str:
    return name.replace("-", "_")


def _conftests(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in root.rglob("conftest.py")]


def _parsed(lines: Iterable[str]) -> Iterable[Requirement]:
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:  # an option, a path, a template
            continue
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": one}) for one in ("", "test")):
            yield requirement


def _from_files(root: Path) -> list[str]:
    """Lines of files of requirements whose name or folder speaks of tests, and of those that these include."""
    named = [path for path in root.rglob("*.txt") if "requirements" in path.relative_to(root).as_posix().lower()]
    queue = sorted(path for path in named if _OF_TESTS.search(path.relative_to(root).as_posix()))[:_MOST_FILES]
    lines, seen = [], set()
    while queue and len(seen) < _MOST_FILES:
        path = queue.pop(0).resolve()
        if path in seen or not path.is_relative_to(root.resolve()) or not path.is_file():
            continue
        seen.add(path)
        for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines():
            line = re.sub(r"(^|\s)#.*", "", line).strip()
            if match := re.match(r"(?:-r|--requirement)[ =]*(.+)", line):
                queue.append(path.parent / match[1])
            else:
                lines.append(re.sub(r"\s--hash.*|\s*\\$", "", line))
    return lines


def _from_toml(root: Path) -> list[str]:
    """Requirements under any key that speaks of tests: extras, groups, and the tables of poetry, pdm, hatch, tox."""
    lines: list[str] = []
    for name in ("pyproject.toml", "tox.toml", "Pipfile"):
        try:
            tables = tomllib.loads((root / name).read_text(encoding="utf-8-sig"))
        except _UNREADABLE:  # of which a TOMLDecodeError is one
            continue
        for keys, value in _leaves(tables, ()):
            path = " ".join(keys[:-1])
            if keys[-1] == "legacy_tox_ini":
                lines += _from_ini(str(value), _is_of_tox)
            elif isinstance(value, list) and _NAMES_NEEDS.search(" ".join(keys)):
                speaks_of_tests = _OF_TESTS.search(" ".join(keys)) or keys[-1] == "deps"  # tox's
                lines += [line for line in value if isinstance(line, str) and speaks_of_tests]
            elif _OF_TESTS.search(path) and path.endswith(("dependencies", "packages")):
                lines.append(keys[-1])  # NAME = "versions"
    return lines


def _leaves(table: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in table.items():
        is_table = isinstance(value, Mapping) and "version" not in value  # poetry: {version = "1", optional = true}
        if is_table:
            yield from _leaves(value, (*keys, key))
        else:
            yield (*keys, key), value


def _from_tox(root: Path) -> list[str]:
    """Dependencies of tox's environments of tests and of setup.cfg's old words for tests."""
    lines: list[str] = []
    for name, is_read in (("tox.ini", _is_of_tox), ("setup.cfg", _is_of_setup)):
        try:
            lines += _from_ini((root / name).read_text(encoding="utf-8-sig"), is_read)
        except _UNREADABLE:
            continue
    return lines


def _is_of_tox(section: str, key: str) -> bool:
    return section.startswith("testenv") and key == "deps"


def _is_of_setup(section: str, key: str) -> bool:
    return section.startswith("options") and bool(_OF_TESTS.search(key))


def _from_ini(text: str, is_read: Callable[[str, str], bool]) -> list[str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return []
    values = [text for section in parser.sections() for key, text in parser.items(section) if is_read(section, key)]
    # Of "py37: mock" what follows the factor.
    return [re.sub(r"^[\w{},-]+:\s*(?=\w)", "", line.strip()) for text in values for line in text.splitlines()]


def _from_setup(root: Path) -> list[str]:
    """Strings in setup.py's ``tests_require`` and in its extras for tests, where they stand there as such."""
    try:
        tree = ast.parse((root / "setup.py").read_bytes())
    except _UNREADABLE:
        return []
    lines: list[str] = []
    named = {
        node.targets[0].id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for node in ast.walk(tree):
        for keyword in node.keywords if isinstance(node, ast.Call) else ():
            value = named.get(keyword.value.id) if isinstance(keyword.value, ast.Name) else keyword.value
            if keyword.arg == "tests_require" and value is not None:
                lines += _strings(value)
            elif keyword.arg == "extras_require" and isinstance(value, ast.Dict):
                for key, extra in zip(value.keys, value.values, strict=True):
                    if isinstance(key, ast.Constant) and _OF_TESTS.search(str(key.value)):
                        lines += _strings(extra)
    return lines


def _strings(value: ast.AST) -> list[str]:
    return [node.value for node in ast.walk(value) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
