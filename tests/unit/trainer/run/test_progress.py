"""Progress: bars on a terminal, one line a bar where nobody watches."""

# Consoles of these tests write into an io.StringIO.
# pyright: reportAttributeAccessIssue=false

import io
import re
import sys

import pytest
from rich.console import Console

from verigym.trainer.run.progress import Progress, curve


def console(**kwargs):
    return Console(file=io.StringIO(), width=120, **kwargs)


def test_a_log_gets_a_line_at_the_end_of_each_bar():
    out = console()
    with Progress(out) as progress:
        with progress.bar("training: [rl]", total=3) as bar:
            bar.advance()
            bar.at(2, text="reward 0.5 [up]")
            assert out.file.getvalue() == ""
        progress.note("saved in runs/[one]")
        with progress.bar("tasks") as bar:
            bar.at(4, 9)
    assert re.sub(r"[0-9]+ s\b", "0 s", out.file.getvalue()) == (
        "training: [rl]: 2 in 0 s, reward 0.5 [up]\nsaved in runs/[one]\ntasks: 4 in 0 s\n"
    )


def test_a_terminal_sees_how_far_it_is_and_what_is_left():
    out = console(force_terminal=True)
    with Progress(out) as progress, progress.bar("training: [rl]", total=4) as bar:
        bar.at(3, text="reward 0.5")
        progress._bars.refresh()  # as a few times a second
    shown = out.file.getvalue()
    for part in ("training: [rl]", "3/4", "left", "reward 0.5"):
        assert part in shown


def test_what_has_ended_is_a_line_above_what_runs():
    out = console(force_terminal=True)
    with Progress(out) as progress, progress.bar("evaluation"):
        with progress.bar("training: [rl]", total=4) as bar:
            bar.at(4)
        shown = screen(out.file.getvalue())
    assert re.sub(r"[0-9]+ s\b", "0 s", shown[0]) == "training: [rl]: 4 in 0 s"
    assert sum("training" in line for line in shown) == 1


def test_a_terminal_keeps_what_is_printed_beside_bars(monkeypatch):
    """Standard output and error are the same terminal: what is drawn again must not be drawn over a table."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with Progress(Console(file=out, width=120, force_terminal=True)) as progress, progress.bar("rl") as bar:
        bar.advance()
        progress.print("a table\nof lines\n")
        progress.show(lambda width, height: "drawn", "a line")
    shown = screen(out.getvalue())
    assert [line for line in shown if line in ("a table", "of lines")] == ["a table", "of lines"]


def test_what_is_shown_changes_on_a_terminal_and_is_a_line_each_time_elsewhere():
    terminal, log = console(force_terminal=True), console()
    for out in (terminal, log):
        with Progress(out) as progress:
            for number in (1, 2):
                progress.show(lambda width, height, number=number: f"table {number}", f"line {number}")
            progress.end_shown()
            progress.end_shown()
    assert [line for line in screen(terminal.file.getvalue()) if line] == ["table 2"]
    assert log.file.getvalue() == "line 1\nline 2\n"


def test_curves_hold_the_newest_and_stay_in_bounds():
    assert curve([-1.0, 0.0, 0.5, 2.0], "0123") == "0023"
    assert curve([1.0] * 50 + [0.0], "ab") == "b" * 19 + "a"
    assert curve([1.0] * 50 + [0.0], "ab", 3) == "bba"


def screen(text):
    """Lines that a terminal shows after this text: what rich uses of its commands."""
    lines, row, column, place = [""], 0, 0, 0
    while place < len(text):
        if found := re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])").match(text, place):
            count, command = found.groups()
            row -= int(count or 1) if command == "A" else 0
            if command == "K":
                lines[row] = ""
            place = found.end()
            continue
        if text[place] == "\r":
            column = 0
        elif text[place] == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        else:
            lines[row] = lines[row].ljust(column)[:column] + text[place] + lines[row][column + 1 :]
            column += 1
        place += 1
    return [line.rstrip() for line in lines]


def test_a_bar_that_fails_says_how_far_it_came():
    out = console()

    def work(bar):
        bar.advance()
        raise KeyError

    with Progress(out) as progress, pytest.raises(KeyError), progress.bar("tasks", total=2) as bar:
        work(bar)
    assert out.file.getvalue().startswith("tasks: 1 in ")


def test_reports_go_to_standard_output(capsys):
    Progress(console()).print("a table")
    assert capsys.readouterr().out == "a table\n"
