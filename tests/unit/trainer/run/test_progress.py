"""Progress: bars on a terminal, one line a bar where nobody watches."""

import io
import re

import pytest
from rich.console import Console

from verigym.trainer.run.progress import Progress


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
    shown = out.file.getvalue()
    for part in ("training: [rl]", "3/4", "left", "reward 0.5"):
        assert part in shown
    assert "3 in 0 s" not in shown


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
