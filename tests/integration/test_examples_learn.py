"""Examples train by their own recipes on the tiny model: five steps of reinforcement, and rewards rise."""

import json
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


@pytest.mark.slow  # two minutes of a core
def test_who_played_against_itself_beats_who_it_was(tmp_path, monkeypatch):
    """The rewards of both sides of such a game come to nothing: what rises is what it wins against its former self."""
    monkeypatch.syspath_prepend(str(FOLDER))
    assert main(["train", str(FOLDER / "tictactoe.toml"), "--out", str(tmp_path / "run")]) == 0
    before = f"engine:{tmp_path / 'run' / 'sft' / 'checkpoint'}"
    after = f"engine:{tmp_path / 'run' / 'rl' / 'checkpoint'}"
    won = {}
    for name, policy in (("before", before), ("after", after)):
        rivals = ["--model", f"player_0={before}", "--model", f"player_1={before}"]
        limits = ["--samples", "8", "--temperature", "1", "--max-turns", "5", "--max-tokens", "12"]
        out = tmp_path / name
        assert main(["eval", "tictactoe:TicTacToe", "--policy", policy, *rivals, *limits, "--out", str(out)]) == 0
        won[name] = json.loads((out / "report.json").read_text())["pass@1"]
    assert won["after"] > won["before"] + 0.2
