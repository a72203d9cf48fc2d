"""recipes/stages.toml with small numbers: three stages, a checkpoint each, one report; nothing held out is learned."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from verigym.envs.registry.opening import read_any_tasks
from verigym.envs.trace.shards import read_shards
from verigym.envs.trace.tasks import job_of
from verigym.envs.trace.twins import twin_key
from verigym.model.attention import Documents
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


@torch.no_grad()
def loads_everywhere(checkpoint, folder):
    """In the engine, in transformers with the same logits, and in `verigym eval`."""
    import transformers

    decoder, tokenizer = load_checkpoint(checkpoint)
    Generator(decoder, max_context=8).close()
    ids = torch.tensor(tokenizer.encode("def f(x):\n    return x + 1\n") * 8)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    expected = theirs(ids[None]).logits[0]
    found = decoder.logits(decoder(ids, Documents.from_lengths([len(ids)])))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert transformers.AutoTokenizer.from_pretrained(checkpoint)("def f").input_ids == tokenizer.encode("def f")
    data = folder / "cruxeval.jsonl"
    data.write_text(json.dumps({"id": "a", "code": "def f(x):\n    return x", "input": "1", "output": "1"}) + "\n")
    options = ["--data", str(data), "--policy", f"engine:{checkpoint}", "--max-tokens", "4", "--sandbox", "local"]
    out = folder / checkpoint.parent.name
    command = [sys.executable, "-m", "verigym", "eval", "cruxeval", *options, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    report = json.loads((out / "report.json").read_text())
    assert (done.returncode, report["num_predictions"], report["num_infrastructure_failures"]) == (0, 2, 0), done.stderr


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
    for row in report["stages"].values():
        loads_everywhere(Path(row["checkpoint"]), tmp_path)
    held_out = {twin_key(job_of(task).source) for task in read_any_tasks(out / "tasks" / "trace.held_out.jsonl")}
    trained = {twin_key(job_of(task).source) for task in read_any_tasks(out / "tasks" / "trace.train.jsonl")}
    assert len(held_out) == 6
    assert not held_out & trained
    assert len(list(read_shards(out / "midtrain" / "traces"))) == 60
    metrics = [json.loads(line) for line in (out / "midtrain" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2, 3]
    assert "trainer/held_out_loss/mean" in metrics[1]
    again = train(out, "--resume")
    assert again.returncode == 0, again.stderr
    assert "training: midtrain" not in again.stderr
