"""recipes/smollm2.toml to its end, with a tiny model of random weights in SmolLM2's place."""

import json
from pathlib import Path

import pytest

from verigym.__main__ import main

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "smollm2.toml"
SMALL = (
    "sandbox=unsafe",
    "threads=1",
    "model.max_context=1000",  # a token is a byte
    "model.lora.rank=2",
    "families.0.num_train=12",
    "families.0.num_held_out=4",
    "families.0.num_demonstrations=6",
    "families.1.num_train=12",
    "families.1.num_held_out=4",
    "families.1.num_demonstrations=6",
    "sft.train.max_steps=4",
    "sft.train.eval_every=2",
    "rl.steps=2",
    "rl.train.num_tasks=2",
    "rl.train.group_size=2",
)


@pytest.mark.slow
def test_every_stage_runs_and_the_checkpoint_says_how_it_was_spoken_to(family_checkpoint, tmp_path):
    sets = [word for one in (f"model.checkpoint={family_checkpoint}", *SMALL) for word in ("--set", one)]
    assert main(["train", str(RECIPE), *sets, "--out", str(tmp_path / "run")]) == 0
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert list(report["stages"]) == ["sft", "rl", "control"]
    assert {name: rows["rl"]["n"] for name, rows in report["families"].items()} == {"math": 4, "code": 4}
    rows = [json.loads(line) for line in (tmp_path / "run" / "sft" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["trainer/loss/mean"] < rows[0]["trainer/loss/mean"]
    steps = [json.loads(line) for line in (tmp_path / "run" / "rl" / "metrics.jsonl").read_text().splitlines()]
    assert [row["rollout/episodes/count"] for row in steps] == [4, 4]
    settings = json.loads((tmp_path / "run" / "rl" / "checkpoint" / "verigym.json").read_text())
    assert settings["template"] == {"tools": "taught", "options": {}}
