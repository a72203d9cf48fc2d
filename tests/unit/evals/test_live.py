"""What an evaluation tells while it works, where nobody watches."""

import pytest

from verigym.evals.live import LiveProgress
from verigym.evals.verdict import Verdict


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("verigym.evals.live.time.monotonic", lambda: now[0])

    def tick(seconds):
        now[0] += seconds

    return tick


def verdict(passed):
    return Verdict(task_id="[a]", index=0, passed=passed, score=None, ending="answered")


def test_a_log_gets_a_line_now_and_then(clock, capsys):
    with LiveProgress("evaluating", 100) as progress:
        for passed in (True, False, None):
            clock(9)
            progress.told(verdict(passed))
        assert capsys.readouterr().err == ""
        clock(9)
        progress.told(verdict(True))
        progress.told(verdict(True))
    assert capsys.readouterr().err == "evaluating: 4 of 100, passed 2 of 3, 1 without a verdict; about 864 s left\n"
