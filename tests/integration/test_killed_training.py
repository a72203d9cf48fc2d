"""A run that is killed at random moments, while it samples, steps or saves, ends as one that was not."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from verigym.trainer.run.recording import read_episodes

from .small_recipe import CODE

STEPS = 24
RECIPE = f"""
name = "killed"
save_seconds = 0
episode_seconds = 3600
{CODE}
[sft.train]
max_steps = {STEPS}
patience = 0
batch_tokens = 1024
microbatch_tokens = 1024

[rl]
steps = {STEPS}

[rl.train]
num_tasks = 2
group_size = 4
microbatch_tokens = 1024
drop_uniform_groups = false
entropy_coef = 0.01
max_useless_steps = 99

[record]
tokens = 0.3

[rl.evaluation]
every = 3
num_tasks = 2

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
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        found[stage] = [[row[name] for name in NAMES if name in row] for row in rows]
    return found


def evaluations(out: Path) -> list[tuple[int, dict[str, float]]]:
    """Step and pass@1 by family of each evaluation during training."""
    rows = [json.loads(line) for line in (out / "rl" / "evaluations.jsonl").read_text().splitlines()]
    return [(row["step"], row["families"]) for row in rows]


def kept_tokens(out: Path) -> list[tuple[int, int, str]]:
    """Step, place and group of each segment whose tokens were kept."""
    paths = sorted((out / "rl" / "tokens").glob("*.parquet"))
    rows = [row for path in paths for row in pq.read_table(path, columns=["step", "episode", "group"]).to_pylist()]
    return [(row["step"], row["episode"], row["group"]) for row in rows]


def rows_of(out: Path) -> int:
    """Steps that a run has told of, in both stages."""
    files = (out / stage / "metrics.jsonl" for stage in ("sft", "rl"))
    return sum(file.read_bytes().count(b"\n") for file in files if file.exists())


@pytest.mark.slow
def test_ten_kills_change_no_loss(tmp_path):
    """Each kill comes once the run has got further than any before it, and up to three steps later: in a step, in the
    sampling, in a save, in an evaluation, between the stages."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE)
    whole = start(recipe, tmp_path / "whole")
    _, error = whole.communicate(timeout=900)
    assert whole.returncode == 0, error.decode()
    last = [
        json.loads((tmp_path / "whole" / stage / "metrics.jsonl").read_text().splitlines()[-1])
        for stage in ("sft", "rl")
    ]
    step_seconds = sum(row["seconds"] for row in last) / sum(row["step"] for row in last)
    out, rng, most = tmp_path / "killed", random.Random(5), 0
    for number in range(10):
        process = start(recipe, out)
        deadline = time.monotonic() + 600
        while process.poll() is None and rows_of(out) <= most:
            assert time.monotonic() < deadline, f"no step in time after {number} kills"
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 3) * step_seconds)
        assert process.poll() is None, f"it ended before it could be killed the {number + 1}th time, at row {most}"
        process.kill()
        assert process.wait() == -signal.SIGKILL
        most = max(most, rows_of(out))
    process = start(recipe, out)
    _, error = process.communicate(timeout=900)
    assert process.returncode == 0, error.decode()
    expected = losses(tmp_path / "whole")
    for stage, rows in losses(out).items():
        for row, wanted in zip(rows, expected[stage], strict=True):
            assert row == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert evaluations(out) == evaluations(tmp_path / "whole")
    assert [step for step, _ in evaluations(out)] == list(range(0, STEPS + 1, 3))
    for run in (out, tmp_path / "whole"):
        # No step's episodes are lost, or written twice; and what is kept of tokens is of the same groups.
        episodes = list(read_episodes(run / "rl"))
        assert [(row["step"], row["index"]) for row in episodes] == [
            (s, i) for s in range(1, STEPS + 1) for i in range(8)
        ]
    kept = [kept_tokens(run) for run in (out, tmp_path / "whole")]
    assert kept[0] == kept[1]
    assert kept[0]
    bests = [json.loads((run / "rl" / "best" / "best.json").read_text()) for run in (out, tmp_path / "whole")]
    assert bests[0] == bests[1]
