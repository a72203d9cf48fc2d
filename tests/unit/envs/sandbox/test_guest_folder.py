"""What runs inside a sandbox is a folder apart."""

import ast
import sys
from pathlib import Path

from verigym.envs.sandbox import launch

GUEST = Path(launch.__file__).parent / "guest"
ROOMS = ("agent", "envs", "evals", "model", "rewards", "trainer")


def imported(path):
    """(level, module) of every import of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""
        elif isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)


def test_the_guest_imports_the_standard_library_and_itself():
    for path in GUEST.glob("*.py"):
        for level, module in imported(path):
            assert level == 1 or (level == 0 and module.partition(".")[0] in sys.stdlib_module_names), (path, module)


def test_every_file_of_the_guest_is_shipped_each_after_what_it_imports():
    assert {f"{name}.py" for name in launch.GUEST_FILES} == {path.name for path in GUEST.glob("*.py")} - {"__init__.py"}
    for number, name in enumerate(launch.GUEST_FILES):
        needed = {module for level, module in imported(GUEST / f"{name}.py") if level == 1 and module}
        assert needed <= set(launch.GUEST_FILES[:number])


def test_nothing_outside_imports_the_guest_but_how_archives_are_unpacked():
    root = GUEST.parents[2]
    files = [path for room in ROOMS for path in (root / room).rglob("*.py") if GUEST not in path.parents]
    assert files
    assert [
        path
        for path in files
        for _, module in imported(path)
        if "sandbox.guest" in module and module != "sandbox.guest.files"
    ] == []
