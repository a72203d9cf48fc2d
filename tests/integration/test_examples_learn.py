"""Examples train by their own recipes on the tiny model: five steps of reinforcement, and rewards rise."""

import statistics
from pathlib import Path

import pytest

from verigym.__main__ import main

from .small_recipe import metrics

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "environments"
RISES = {"sql": 0.2, "wordle": 0.05}
"""Recipe -> least rise of the mean of the last three steps over the first: half of the least of three seeds."""


@pytest.mark.slow  # a minute of a core each
@pytest.mark.parametrize("name", RISES)
def test_rewards_rise_in_five_steps(name, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    assert main(["train", str(FOLDER / f"{name}.toml"), "--out", str(tmp_path / "run")]) == 0
    rewards = [row[f"rollout/reward_{name}/mean"] for row in metrics(tmp_path / "run", "rl")]
    assert len(rewards) == 5
    assert statistics.mean(rewards[2:]) > rewards[0] + RISES[name]
