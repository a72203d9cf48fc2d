"""What the rooms say of themselves, and the tables and drawings that repeat it, are true."""

import ast
import re
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("agent", "envs", "rewards", "trainer", "model", "evals")
ROOMS = sorted(path.parent.relative_to(ROOT) for floor in FLOORS for path in (ROOT / floor).rglob("__init__.py"))
FILE = re.compile(r"[\w/{},*-]+\.py\b")


def docstring(room):
    return ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text(encoding="utf-8"))) or ""


def row(room):
    return f"| `{room.as_posix()}/` | {docstring(room).splitlines()[0]} |"


def files_named(text):
    """Paths in a text; braces stand for one of several."""
    for name in FILE.findall(text):
        parts = [part.split(",") if "," in part else [part] for part in re.split(r"[{}]", name)]
        yield from ("".join(one) for one in product(*parts))


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_a_room_says_what_is_in_it_what_it_may_import_and_where_to_begin(room):
    first, *rest = docstring(room).splitlines()
    assert first.endswith(".")
    assert rest[1].startswith("May import: ")
    assert rest[2].startswith("Begin at: ")
    missing = [name for name in files_named(rest[2]) if not list((ROOT / room).rglob(Path(name).name))]
    assert missing == []


def test_the_tables_of_rooms_are_their_docstrings():
    architecture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines()
    assert [row(room) for room in ROOMS if row(room) not in architecture] == []


def test_every_file_that_the_map_names_is_there():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = {path.relative_to(ROOT).as_posix() for floor in FLOORS for path in (ROOT / floor).rglob("*.py")}
    named = set(files_named(text))
    assert len(named) > 40
    assert [name for name in named if "*" not in name and not any(file.endswith(name) for file in files)] == []


def test_an_inner_room_has_a_line_in_an_import_contract():
    contracts = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    inner = [room for room in ROOMS if len(room.parts) == 2 and room.parts[0] in ("envs", "trainer")]
    assert inner
    assert [room.name for room in inner if not re.search(rf'"[^"]*\b{room.name}\b[^"]*"', contracts)] == []
