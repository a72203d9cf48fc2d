"""``verigym train`` over two processes, as torchrun and accelerate start it: the losses of one process."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .small_recipe import CODE, LEARNING, TORCHRUN, command, metrics, train

RECIPE = f"""
name = "ranks"
episode_seconds = 3600
{CODE}
[midtrain]
[[midtrain.sources]]
name = "episodes"
demonstrations = true
[midtrain.train]
max_steps = 2
patience = 0
batch_tokens = 1024
microbatch_tokens = 512
{LEARNING}"""
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no"]
STEPS = {"midtrain": 2, "sft": 4, "rl": 4}


def losses(out: Path, steps: dict[str, int] = STEPS) -> dict[str, list[list[float]]]:
    names = ("trainer/loss/mean", "trainer/grad_norm/mean", "trainer/held_out_loss/mean", "rollout/reward/mean")
    names += ("trainer/trained_tokens/count",)
    found = {}
    for stage, count in steps.items():
        rows = metrics(out, stage)
        assert [row["step"] for row in rows] == list(range(1, count + 1))
        found[stage] = [[row[name] for name in names if name in row] for row in rows]
    return found


def rank_1_of(launcher: int) -> int:
    """The process that a launcher has started as rank 1."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if parent == launcher and b"RANK=1" in variables:
            return int(entry.name)
    raise AssertionError("there is no rank 1")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def check_same(found: dict[str, list[list[float]]], expected: dict[str, list[list[float]]]) -> None:
    for stage, rows in expected.items():
        for row, wanted in zip(found[stage], rows, strict=True):
            assert row == pytest.approx(wanted, rel=1e-5, abs=1e-5), stage


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_whoever_starts_them(recipe: Path, tmp_path: Path) -> None:
    train([], recipe, tmp_path / "one")
    expected = losses(tmp_path / "one")
    train(TORCHRUN, recipe, tmp_path / "two")
    check_same(losses(tmp_path / "two"), expected)
    assert json.loads((tmp_path / "two" / "report.json").read_text())["families"]["code"]["rl"]["n"] == 4
    train(ACCELERATE, recipe, tmp_path / "tensor", "--set", "layout.tensor=2")
    check_same(losses(tmp_path / "tensor"), expected)


@pytest.mark.slow
def test_an_asynchronous_run_over_two_processes(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    changes = ("--set", "rl.asynchronous.max_lag=1", "--set", "rl.train.correction.kind=truncate")
    train(TORCHRUN, recipe, out, *changes, "--set", "rl.train.kl.coef=0.01")
    rows = metrics(out, "rl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert max(row["trainer/lag/max"] for row in rows) == 1
    # Before an update the ranks score what the engine sampled as it did; after one, episodes may be a step old.
    assert abs(rows[0]["trainer/mismatch_kl/mean"]) < 1e-6
    assert all(row["trainer/mismatch_kl/mean"] is not None for row in rows)


@pytest.mark.slow
def test_ctrl_c_saves_and_another_number_of_processes_goes_on(recipe: Path, tmp_path: Path) -> None:
    steps = {"midtrain": 2, "sft": 4, "rl": 8}
    longer = ("--set", "rl.steps=8")
    train([], recipe, tmp_path / "whole", *longer)
    out = tmp_path / "run"
    running = subprocess.Popen(
        command(TORCHRUN, recipe, out, *longer), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    told, deadline = out / "rl" / "metrics.jsonl", time.monotonic() + 400
    while not (told.exists() and told.read_text().count("\n") >= 2):
        assert running.poll() is None, running.communicate()[0].decode()
        assert time.monotonic() < deadline, "no step of reinforcement learning in time"
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=120)
    assert running.returncode != 0, "the run had ended before the signal came"
    assert list((out / "rl" / "steps").glob("step-*/manifest.json")), said.decode()
    assert told.read_text().count("\n") < 8
    train([], recipe, out, *longer, "--resume")
    check_same(losses(out, steps), losses(tmp_path / "whole", steps))


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_a_resume_finishes(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    changes = ("--set", "rl.steps=8", "--set", "save_seconds=0")
    running = subprocess.Popen(
        command(TORCHRUN, recipe, out, *changes), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    told, deadline = out / "rl" / "metrics.jsonl", time.monotonic() + 400
    while not (told.exists() and told.read_text().count("\n") >= 2):
        assert running.poll() is None, running.communicate()[0].decode()
        assert time.monotonic() < deadline, "no step of reinforcement learning in time"
        time.sleep(0.05)
    os.kill(rank_1_of(running.pid), signal.SIGKILL)
    said, _ = running.communicate(timeout=300)
    assert running.returncode != 0, said.decode()
    train(TORCHRUN, recipe, out, *changes, "--resume")
    assert [row["step"] for row in metrics(out, "rl")] == list(range(1, 9))
