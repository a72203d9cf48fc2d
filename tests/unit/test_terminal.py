"""What people are told is text, whatever it looks like."""

import ast
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

import verigym
from verigym.__main__ import main
from verigym.envs.cli import terminal as tables
from verigym.envs.code.env import BUILT_IN
from verigym.envs.task import write_jsonl
from verigym.evals.report import build_report, report_table
from verigym.evals.verdict import Verdict
from verigym.terminal import console, text_column

ROOT = Path(verigym.__file__).parent
ROOMS = ("agent", "envs", "evals", "model", "rewards", "trainer")
NAMES = [
    "tests/t.py::test_f[/a/b]",
    "test_f[deg (angle) one]",
    "test_f[bold]x[/bold]",
    "test_f[link=http://x]",
    "[/]",
    "\\[x]",
    ":id:",
    ":smiley:",
    "[red",
    "[[]]",
    "a[@click=f]b",
    "{task.description}",
]


def shown(renderable, **options):
    out = io.StringIO()
    console(file=out, width=500, **options).print(renderable)
    return out.getvalue()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("color", [False, True])
def test_names_are_shown_as_they_are(name, color):
    table = Table(name, title=name)
    table.add_row(name)
    found = shown(table, force_terminal=color, no_color=True, highlight=False)
    assert found.count(name) == 3
    assert shown(name, highlight=False) == name + "\n"


@given(st.text(st.sampled_from("[]/\\:=a b#@{}"), max_size=20))
def test_any_text_is_shown_as_it_is(text):
    assert shown(f"<{text}>", highlight=False) == f"<{text}>\n"


@pytest.mark.parametrize("name", NAMES)
def test_tables_of_commands_show_them(name, capsys):
    tables.table(name, ("task", "verdict"), [(name, f"gold: {name} failed")])
    assert capsys.readouterr().out.count(name) == 3


@pytest.mark.parametrize("name", NAMES)
def test_reports_show_them(name):
    verdicts = [Verdict(task_id=name, index=0, passed=True, score=1.0, ending="answered", family=name)]
    verdicts += [Verdict(task_id="b", index=0, passed=False, score=0.0, ending=name, family="f", labels={"repo": name})]
    found = shown(report_table(build_report(name, name, verdicts, seconds=1.0, settings={})))
    assert found.count(name) >= 3


def test_bars_show_them():
    from rich.progress import Progress

    out = io.StringIO()
    with Progress(text_column("{task.description}"), console=console(file=out, force_terminal=True, width=200)) as bars:
        for name in NAMES:
            bars.add_task(name)
    assert all(name in out.getvalue() for name in NAMES)


def test_no_module_has_a_console_of_its_own():
    """One of rich's own would read markup again."""
    found = []
    for path in [ROOT / "__main__.py", *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                if name in ("Console", "TextColumn", "from_markup"):
                    found.append(f"{path}:{node.lineno}")
    assert not found


def test_results_are_written_before_they_are_told(tmp_path, monkeypatch):
    source, out = tmp_path / "tasks.jsonl", tmp_path / "kept.jsonl"
    write_jsonl(source, [BUILT_IN[0].to_json()])

    def broken(*_):
        raise OSError("the terminal is gone")

    monkeypatch.setattr(tables, "table", broken)
    argv = ["tasks", "validate", str(source), "--out", str(out), "--sandbox", "local", "--times", "1"]
    assert main(argv) == 2
    assert [json.loads(line)["id"] for line in out.read_text().splitlines()] == [BUILT_IN[0].id]


def test_progress_in_a_log_is_lines(capsys, monkeypatch):
    now = [100.0]
    # The module's name alone: loops in other threads of this process go by the clock itself.
    monkeypatch.setattr(tables, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with tables.progress_bar() as tell:
        for second in range(25):
            now[0] = 100.0 + second
            tell("running tests: seconds", second, 120)
        tell("bugs tried: 1 of 9; tasks", 0, 2)
        tell("bugs tried: 2 of 9; tasks", 0, 2)
        tell("bugs tried: 3 of 9; tasks", 2, 2)
    assert capsys.readouterr().err.splitlines() == [
        "[0 s] running tests: seconds 0 of 120",
        "[10 s] running tests: seconds 10 of 120",
        "[20 s] running tests: seconds 20 of 120",
        "[24 s] bugs tried: 1 of 9; tasks 0 of 2",
        "[24 s] bugs tried: 3 of 9; tasks 2 of 2",
    ]
