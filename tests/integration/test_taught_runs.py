"""Runs that are taught, stage after stage: killed and resumed, over ranks, ahead of training, with adapters."""

import json
import math
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from .small_recipe import CODE, TORCHRUN, command, metrics, train

RECIPE = f"""
name = "taught"
save_seconds = 0
episode_seconds = 3600
{CODE}
[sft.train]
max_steps = UPDATES
patience = 0
batch_tokens = 1024
microbatch_tokens = 512

[eval]
samples = 1
greedy = false
controls = []
"""
TAUGHT = """
[distill]
steps = 6

[distill.train]
num_tasks = 2
group_size = 2
microbatch_tokens = 512
collapse = {{ window = 50 }}
{distill}

[rl]
steps = 6

[rl.train]
num_tasks = 2
group_size = 2
microbatch_tokens = 512
collapse = {{ window = 50 }}
{rl}
"""
ALGORITHMS = {
    "opd, sdpo": {
        "distill": 'algorithm = "opd"\nteacher = "TEACHER"\ndivergence = { kind = "reverse" }',
        "rl": 'algorithm = "sdpo"\nhindsight = { parts = ["verdict"], max_tokens = 60 }',
    },
    "opsd, sdft": {
        "distill": 'algorithm = "opsd"\nhindsight = { parts = ["reference"], max_tokens = 60 }',
        "rl": 'algorithm = "sdft"\nhindsight = { parts = ["demonstration"], max_tokens = 60 }',
    },
}
"""Of both stages; teachers are another checkpoint, the policy itself, and a moving average of it."""
NAMES = ("trainer/loss/mean", "trainer/grad_norm/mean", "trainer/divergence/mean", "rollout/sampled_tokens/mean")
AHEAD = ("--set", "distill.asynchronous.max_lag=1", "--set", "rl.asynchronous.max_lag=1")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A student, and a teacher that has seen more."""
    found = []
    for updates in ("1", "10"):
        folder = tmp_path_factory.mktemp("model")
        (folder / "recipe.toml").write_text("rl = false\n" + RECIPE.replace("UPDATES", updates))
        train([], folder / "recipe.toml", folder / "run")
        found.append(folder / "run" / "sft" / "checkpoint")
    return found[0], found[1]


@pytest.fixture(params=["whole", pytest.param("adapters", marks=pytest.mark.slow)])
def weights(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=["opd, sdpo", pytest.param("opsd, sdft", marks=pytest.mark.slow)])
def recipe(request: pytest.FixtureRequest, weights: str, models: tuple[Path, Path], tmp_path: Path) -> Path:
    student, teacher = models
    path, text = tmp_path / "recipe.toml", RECIPE.replace("UPDATES", "1")
    if weights == "adapters":
        text = text.replace("vocab_size = 320", f'checkpoint = "{student}"\nlora = {{ rank = 2 }}')
    path.write_text(text + TAUGHT.format(**ALGORITHMS[request.param]).replace("TEACHER", str(teacher)))
    return path


def learned(out: Path) -> list[list[float]]:
    """Rows of both stages."""
    rows = [row for stage in ("distill", "rl") for row in metrics(out, stage)]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6] * 2
    return [[row[name] for name in NAMES] for row in rows]


def check_same(found: Sequence[Sequence[float]], expected: Sequence[Sequence[float]]) -> None:
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, rel=1e-4, abs=1e-5)


def killed_in(stage: str, launcher: Sequence[str], recipe: Path, out: Path) -> None:
    """Start or go on, and kill the run once the stage has made two steps."""
    told, deadline = out / stage / "metrics.jsonl", time.monotonic() + 400
    more = ["--resume"] if out.exists() else []
    running = subprocess.Popen(command(launcher, recipe, out, *more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not (told.exists() and told.read_text().count("\n") >= 2):
        assert running.poll() is None, running.communicate()[0].decode()
        assert time.monotonic() < deadline, f"no steps of {stage} in time"
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL if not launcher else signal.SIGTERM)
    running.communicate(timeout=120)
    assert running.returncode != 0
    assert told.read_text().count("\n") < 6, "it ended before it could be killed"


@pytest.mark.slow
def test_a_killed_run_goes_on_in_the_stage_that_it_was_in(recipe: Path, tmp_path: Path) -> None:
    train([], recipe, tmp_path / "whole")
    for stage in ("distill", "rl"):
        killed_in(stage, [], recipe, tmp_path / "killed")
    train([], recipe, tmp_path / "killed", "--resume")
    check_same(learned(tmp_path / "killed"), learned(tmp_path / "whole"))


@pytest.mark.slow
def test_ranks_have_the_losses_of_one_process_and_go_on_midway(recipe: Path, tmp_path: Path) -> None:
    train([], recipe, tmp_path / "one")
    expected = learned(tmp_path / "one")
    assert all(math.isfinite(value) for row in expected for value in row)
    killed_in("distill", TORCHRUN, recipe, tmp_path / "two")
    train(TORCHRUN, recipe, tmp_path / "two", "--resume")
    check_same(learned(tmp_path / "two"), expected)


def test_stages_that_sample_ahead_are_taught(recipe: Path, tmp_path: Path) -> None:
    train([], recipe, tmp_path / "run", *AHEAD)
    rows = learned(tmp_path / "run")
    assert all(row[2] > 0 for row in rows)
    assert ["trainer/teacher_passed/rate" in row for row in metrics(tmp_path / "run", "rl")] == [True] + [False] * 5
    lags = [row["trainer/lag/max"] for stage in ("distill", "rl") for row in metrics(tmp_path / "run", stage)]
    assert max(lags) == 1


@pytest.mark.parametrize(("weights", "recipe"), [("whole", "opd, sdpo")], indirect=True)
def test_sampled_tokens_end_a_stage(recipe: Path, tmp_path: Path) -> None:
    out, most = tmp_path / "run", 100
    train([], recipe, out, "--set", "rl=false", "--set", f"distill.max_sampled_tokens={most}")
    rows = metrics(out, "distill")
    counts = [row["rollout/sampled_tokens/mean"] * row["rollout/episodes/count"] for row in rows]
    assert sum(counts[:-1]) < most <= sum(counts)
    assert len(rows) < 6
    stage = json.loads((out / "report.json").read_text())["stages"]["distill"]
    assert stage["sampled_tokens"] == sum(counts)
    assert f"the {most} tokens of distill.max_sampled_tokens were up" in stage["cut"]
