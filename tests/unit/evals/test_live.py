"""What an evaluation tells while it works, where nobody watches."""

from types import SimpleNamespace

import pytest

from verigym.evals.live import LiveProgress
from verigym.evals.verdict import Verdict


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    # The module's name alone: loops in other threads of this process go by the clock itself.
    monkeypatch.setattr("verigym.evals.live.time", SimpleNamespace(monotonic=lambda: now[0]))

    def tick(seconds):
        now[0] += seconds

    return tick


def verdict(passed, ending="answered", detail=""):
    return Verdict(task_id="[a]", index=0, passed=passed, score=None, ending=ending, detail=detail)


def test_a_log_gets_a_line_now_and_then(clock, capsys):
    with LiveProgress("evaluating", 100) as progress:
        for one in (verdict(True), verdict(False), verdict(None, "environment_failure", "shown with its traceback")):
            clock(9)
            progress.told(one)
        assert capsys.readouterr().err == ""
        clock(9)
        progress.told(verdict(True))
        progress.told(verdict(True))
    assert capsys.readouterr().err == "evaluating: 4 of 100, passed 2 of 3, 1 without a verdict; about 864 s left\n"


def test_why_there_is_no_verdict_is_told_at_once_and_once(capsys):
    with LiveProgress("evaluating", 100) as progress:
        progress.told(verdict(True))
        for number in range(3):
            progress.told(verdict(None, "policy_failure", f"the server [{number}] is gone"))
    assert capsys.readouterr().err == "evaluating: no verdict of '[a]' (policy_failure): the server [0] is gone\n"
