"""What the small recipes of these tests share: a tiny model, and one family of programs that is made in no time."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from verigym.__main__ import main

CODE = """
sandbox = "local"
threads = 1
control = false

[model]
vocab_size = 320
max_context = 256

[[families]]
name = "code"
env = "verigym/Code-v0"
tasks = "small-programs"
options = { system_prompt = "" }
num_train = 12
num_held_out = 4
turns = 1
turn_tokens = 16
num_demonstrations = 16
experts = { solve = 0.5, forget_the_condition = 0.5 }
"""

LEARNING = """
[sft.train]
max_steps = 4
batch_tokens = 1024
microbatch_tokens = 512
eval_every = 2

[rl]
steps = 4

[rl.train]
num_tasks = 2
group_size = 4
microbatch_tokens = 512
drop_uniform_groups = false
entropy_coef = 0.01
max_useless_steps = 99

[eval]
samples = 1
controls = []
"""
"""Four steps of imitation and four of reinforcement, from which there is always something to learn."""
LEARNED = ("trainer/loss/mean", "trainer/grad_norm/mean", "rollout/reward/mean", "trainer/trained_tokens/count")
"""The metrics of a step by which two runs are held to be one."""
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def command(launcher: Sequence[str], recipe: Path, out: Path, *more: str) -> list[str]:
    """The words that start a run, by torchrun or the like, or by none."""
    return [sys.executable, *launcher, "-m", "verigym", "train", str(recipe), "--out", str(out), *more]


def train(launcher: Sequence[str], recipe: Path, out: Path, *more: str) -> None:
    """Run to the end: in the processes of a launcher, or in this one, which has imported all that already."""
    if not launcher:
        assert main(["train", str(recipe), "--out", str(out), *more]) == 0
        return
    whole = command(launcher, recipe, out, *more)
    done = subprocess.run(whole, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def metrics(out: Path, stage: str) -> list[dict[str, float]]:
    """The rows of a stage."""
    return [json.loads(line) for line in (out / stage / "metrics.jsonl").read_text().splitlines()]


def learned(out: Path, steps: int) -> list[list[float]]:
    """``LEARNED`` of each of the ``steps`` of reinforcement, none of which is missing or there twice."""
    rows = metrics(out, "rl")
    assert [row["step"] for row in rows] == list(range(1, steps + 1))
    return [[row[name] for name in LEARNED] for row in rows]
