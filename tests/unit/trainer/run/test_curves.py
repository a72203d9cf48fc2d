"""What is shown of reinforcement while it goes on."""

# Consoles of these tests write into an io.StringIO.
# pyright: reportAttributeAccessIssue=false

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from verigym.trainer.run.curves import Curves
from verigym.trainer.run.progress import Progress

STEP = {
    "rollout/reward/mean": 0.1,
    "rollout/reward_swe/mean": 0.5,
    "rollout/passed_swe/rate": 0.25,
    "eval/passed_swe/rate": 0.4,
    "rollout/tokens_per_second/mean": 1234.4,
    "trainer/tokens_per_second/mean": 900.0,
    "rollout/seconds/idle": 0.0,
    "trainer/seconds/idle": 1e9,
    "trainer/updates/count": 2.0,
}


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    # The module's name alone: loops in other threads of this process go by the clock itself.
    monkeypatch.setattr("verigym.trainer.run.curves.time", SimpleNamespace(monotonic=lambda: now[0]))

    def tick(seconds):
        now[0] += seconds

    return tick


def console():
    return Console(file=io.StringIO(), width=200)


def drawn(curves, width=80, height=20):
    out = Console(file=io.StringIO(), width=width)
    out.print(curves.table(width, height))
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def test_a_log_gets_a_line_a_step_which_goes_on_after_a_resume(clock):
    out = console()
    before = [{"step": 1, "rollout/reward_swe/mean": 0.25}, {"step": 2, "rollout/reward_swe/mean": None}]
    with Curves(Progress(out), 12, before) as curves:
        clock(30)
        curves.add(3, STEP)
    assert out.file.getvalue() == (
        "reward, step 3 of 12: swe 0.50; pass@1 of step 3: swe 0.40; tokens/s: 1,234 sampled, 900 trained; "
        "waiting: sampler 0%, trainer 100%; 4:30 left\n"
    )
    assert curves._values == {"swe": [0.25, 0.5]}


def test_the_table_says_what_each_family_has_come_to(clock):
    curves = Curves(Progress(console()), 4, [{"step": 1, **STEP, "rollout/reward_swe/mean": 0.0}])
    clock(10)
    curves.add(2, {**STEP, "eval/passed_swe/rate": None})
    head, row, pace, speed = drawn(curves)
    assert head.split() == ["family", "reward", "now", "passed", "pass@1"]
    assert row.split() == ["swe", "▁▅", "0.50", "25%", "40%", "(1)"]  # measured after step 1
    assert pace == " step 2 of 4; 0:20 left"
    assert speed == " tokens/s: 1,234 sampled, 900 trained; waiting: sampler 0%, trainer 100%"


def test_families_that_do_not_fit_are_counted(clock):
    curves = Curves(Progress(console()), 4)
    clock(10)
    curves.add(1, {f"rollout/reward_family-{number:03d}/mean": 0.5 for number in range(40)})
    shown = drawn(curves, height=12)
    assert len(shown) == 12
    assert shown[-3] == " and 32 more families"
    assert max(map(len, shown)) <= 80


def test_a_step_without_an_update_says_so(clock):
    out = console()
    curves = Curves(Progress(out), 2)
    clock(1)
    curves.add(1, {"rollout/reward_f/mean": 0.0, "trainer/updates/count": 0.0})
    assert "no update: each group's rewards were the same" in out.file.getvalue()


def test_a_family_none_of_whose_episodes_was_graded_has_no_new_point():
    curves = Curves(Progress(console()), 2, [{"step": 1, "rollout/reward_f/mean": 0.5}])
    curves.add(2, {"rollout/reward_f/mean": None})
    assert curves._values == {"f": [0.5]}


def test_episodes_that_failed_are_told_and_are_no_equal_rewards(clock):
    out = console()
    curves = Curves(Progress(out), 3)
    clock(1)
    lost = {"trainer/updates/count": 0.0, "rollout/episodes/count": 0.0, "rollout/failures/count": 8.0}
    curves.add(1, lost)
    assert "8 of 8 episodes had no reward, lost to failures" in out.file.getvalue()
    assert "no update" not in out.file.getvalue()
    curves.add(2, {**lost, "rollout/episodes/count": 6.0, "rollout/failures/count": 2.0})
    assert "2 of 8 episodes had no reward, lost to failures; no update" in out.file.getvalue()
