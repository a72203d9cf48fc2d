"""A run that is killed at random moments, while it samples, steps or saves, ends as one that was not."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .small_recipe import CODE

RECIPE = f"""
name = "killed"
save_seconds = 0
episode_seconds = 3600
{CODE}
[sft.train]
max_steps = 12
patience = 0
batch_tokens = 1024
microbatch_tokens = 1024

[rl]
steps = 12

[rl.train]
num_tasks = 2
group_size = 4
microbatch_tokens = 1024
drop_uniform_groups = false
entropy_coef = 0.01
max_useless_steps = 99

[eval]
samples = 1
controls = []
"""
NAMES = ("trainer/loss/mean", "trainer/grad_norm/mean", "rollout/reward/mean")


def start(recipe: Path, out: Path) -> subprocess.Popen[bytes]:
    resume = ["--resume"] if (out / "recipe.json").exists() else []
    command = [sys.executable, "-m", "verigym", "train", str(recipe), "--out", str(out), *resume]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def losses(out: Path) -> dict[str, list[list[float]]]:
    found = {}
    for stage in ("sft", "rl"):
        rows = [json.loads(line) for line in (out / stage / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, 13))
        found[stage] = [[row[name] for name in NAMES if name in row] for row in rows]
    return found


@pytest.mark.slow
def test_ten_kills_change_no_loss(tmp_path):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    whole = start(recipe, tmp_path / "whole")
    begun = time.monotonic()
    _, error = whole.communicate(timeout=900)
    assert whole.returncode == 0, error.decode()
    lasted = time.monotonic() - begun
    out, rng, num_kills = tmp_path / "killed", random.Random(5), 0
    while num_kills < 10:
        process = start(recipe, out)
        try:
            # Never before it could have done something, so that it comes to an end.
            process.wait(timeout=rng.uniform(0.3, 0.7) * lasted)
            assert process.returncode == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            num_kills += 1
    process = start(recipe, out)
    _, error = process.communicate(timeout=900)
    assert process.returncode == 0, error.decode()
    assert num_kills > 0
    expected = losses(tmp_path / "whole")
    for stage, rows in losses(out).items():
        for row, wanted in zip(rows, expected[stage], strict=True):
            assert row == pytest.approx(wanted, rel=1e-4, abs=1e-6)
