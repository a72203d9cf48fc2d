"""recipes/stages.toml with small numbers: three stages, a checkpoint each, one report; nothing held out is learned."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from verigym.envs.task import read_tasks
from verigym.envs.trace.run import context_of
from verigym.envs.trace.shards import read_shards
from verigym.envs.trace.tasks import job_of
from verigym.model.checkpoint import load_checkpoint
from verigym.model.engine.generator import Generator

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "families.0.num_train=12",
    "families.0.num_held_out=6",
    "families.0.num_demonstrations=12",
    "families.1.num_train=8",
    "families.1.num_held_out=4",
    "families.1.num_demonstrations=8",
    "midtrain.sources.0.num=60",
    "midtrain.train.max_steps=3",
    "midtrain.train.eval_every=2",
    "sft.train.max_steps=3",
    "sft.train.patience=0",
    "rl.steps=1",
    "rl.train.num_tasks=2",
    "rl.train.group_size=2",
    "control=false",
    "threads=1",
)


def train(out, *more):
    sets = [word for change in SMALL for word in ("--set", change)]
    command = [sys.executable, "-m", "verigym", "train", str(ROOT / "recipes" / "stages.toml"), *sets]
    return subprocess.run([*command, "--out", str(out), *more], capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_three_stages_and_one_report(tmp_path):
    out = tmp_path / "run"
    done = train(out)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert list(report["stages"]) == ["midtrain", "sft", "rl"]
    assert set(report["families"]["trace"]) >= {"sft", "rl", "gold", "empty"}
    assert report["families"]["trace"]["gold"]["pass@1"] == 1.0
    assert report["families"]["trace"]["empty"]["pass@1"] == 0.0
    for stage, row in report["stages"].items():
        decoder, tokenizer = load_checkpoint(row["checkpoint"])
        Generator(decoder, max_context=8).close()
        assert tokenizer.reserved("<|frame_sep|>") < tokenizer.vocab_size, stage
    held_out = {context_of(job_of(task)) for task in read_tasks(out / "tasks" / "trace.held_out.jsonl")}
    trained = {context_of(job_of(task)) for task in read_tasks(out / "tasks" / "trace.train.jsonl")}
    assert len(held_out) == 6
    assert not held_out & trained
    assert len(list(read_shards(out / "midtrain" / "traces"))) == 60
    metrics = [json.loads(line) for line in (out / "midtrain" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2, 3]
    assert "trainer/held_out_loss/mean" in metrics[1]
    again = train(out, "--resume")
    assert again.returncode == 0, again.stderr
    assert "training: midtrain" not in again.stderr
