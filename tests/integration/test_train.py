"""``verigym train`` as a user runs it: from a recipe to a report, interrupted, resumed, and asked for nonsense.

Where the process is not what is tested, it is this one: another would import torch again.
"""

import json
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from verigym.__main__ import main

from .small_recipe import CODE, command

RECIPE = f"""
name = "tiny"
{CODE}
[sft.train]
max_steps = 4
patience = 0
batch_tokens = 1024
microbatch_tokens = 1024

[rl]
steps = 3

[rl.train]
num_tasks = 2
group_size = 2
microbatch_tokens = 1024

[eval]
samples = 1
"""


def verigym(*arguments: object) -> int:
    """The exit status of the command line, in this process."""
    return main([str(one) for one in arguments])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def test_training_is_watched_and_the_best_checkpoint_kept(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    changes = ["rl.difficulty={order='frontier'}", "rl.evaluation={every=1, num_tasks=2}", "rl.train.echo={user=0.1}"]
    changes += ["families.0.rl={group_size=3, temperature=0.8}", "rl.train.max_useless_steps=9"]
    assert verigym("train", recipe, "--out", out, *(part for change in changes for part in ("--set", change))) == 0
    report = json.loads((out / "report.json").read_text())
    assert [row["step"] for row in report["evaluations"]] == [0, 1, 2, 3]
    best = report["stages"]["rl"]["best"]
    assert best["pass@1"] == max(row["pass@1"] for row in report["evaluations"])
    assert report["families"]["code"]["best"]["n"] == 2
    assert report["families"]["code"]["rl"]["n"] == 4
    rows = [json.loads(line) for line in (out / "rl" / "metrics.jsonl").read_text().splitlines()]
    assert all({"eval/passed/rate", "eval/passed_code/rate", "eval/best/rate"} <= row.keys() for row in rows)
    assert {row["rollout/episodes/count"] for row in rows} == {6.0}
    spec, held_out = f"engine:{out}/rl/best", out / "tasks" / "code.held_out.jsonl"
    assert verigym("eval", "code", "--data", held_out, "--policy", spec, "--limit", 1, "--max-tokens", 8) == 0


def test_tasks_that_the_start_never_solves_are_told(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert verigym("train", recipe, "--out", out, "--set", "rl.difficulty={samples=1}") == 2
    # One sample is 0 or 1: whatever the model can do, every task rests.
    assert "family 'code': all 12 tasks rest" in capsys.readouterr().err
    assert len((out / "rl" / "difficulty" / "code" / "verdicts.jsonl").read_text().splitlines()) == 12


def test_ctrl_c_saves_the_state_leaves_no_sandbox_and_a_resume_ends_with_a_report_and_checkpoints(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = command((), recipe, out, "--set", "rl.steps=6")
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = out / "rl" / "metrics.jsonl"
    deadline = time.monotonic() + 180
    while not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        assert running.poll() is None, running.communicate()[1]
        assert time.monotonic() < deadline, "no step of reinforcement learning in time"
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=60)
    if running.returncode == 0:
        pytest.skip("the run had ended before the signal came")
    assert running.returncode == 130, stderr
    told = re.search(r"`verigym (train .* --resume)`", stderr)
    assert told, stderr
    assert "Traceback" not in stderr
    assert not _children_of(running.pid)
    steps = metrics.read_text().count("\n")
    assert list((out / "rl" / "steps").glob("step-*/manifest.json"))
    assert verigym(*shlex.split(told[1])) == 0
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert steps < 6
    report = json.loads((out / "report.json").read_text())
    row = report["families"]["code"]
    assert {"sft", "rl", "gold", "empty", "trivial"} <= row.keys()
    assert row["gold"]["pass@1"] == 1.0
    assert row["empty"]["pass@1"] == 0.0
    for stage in ("sft", "rl"):
        assert {"pass@1", "interval", "greedy", "n"} <= row[stage].keys()
        assert report["stages"][stage]["seconds"] > 0
        assert Path(report["stages"][stage]["checkpoint"], "config.json").exists()
    for name in ("curves.png", "episodes.txt", "rl/metrics.jsonl", "sft/metrics.jsonl"):
        assert (out / name).stat().st_size > 0
    spec = f"engine:{out}/rl/checkpoint"
    held_out = out / "tasks" / "code.held_out.jsonl"
    assert verigym("eval", "code", "--data", held_out, "--policy", spec, "--limit", 2, "--max-tokens", 16) == 0
    assert verigym("train", recipe, "--out", out) == 2
    assert "--resume" in capsys.readouterr().err


def _children_of(pid: int) -> list[str]:
    """Processes whose parent is ``pid``."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(status[1]) == pid:
            found.append(entry.name)
    return found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("rl.stepz=3", "did you mean 'steps'"),
        ("rl.train.group_size=1", "no baseline"),
        ("families.0.experts={solv=1.0}", "solve"),
        ("families.0.env='verigym/Nothing-v0'", "verigym/Nothing-v0"),
        ("families.0.tasks='nowhere.jsonl'", "nowhere.jsonl"),
        ("model={checkpoint='nowhere'}", "nowhere"),
        ("rl.train.microbatch_tokens=64", "raise microbatch_tokens"),
        ("model.max_context=8193", "model's context 8192"),
        ("model.attention='triton'", "move them to a CUDA device"),
    ],
)
def test_nonsense_is_one_clear_line(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: str,
    said: str,
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")  # the interpreter would run the kernels here
    monkeypatch.chdir(tmp_path)
    assert verigym("train", recipe, "--out", tmp_path / "run", "--set", change) == 2
    told = capsys.readouterr().err
    error = told.strip().splitlines()[-1]
    assert error.startswith("verigym: error: ")
    assert said in error
    assert "Traceback" not in told


def test_a_broken_row_is_named_by_its_line(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "tasks.jsonl"
    rows.write_text('{"id": "a", "family": "code", "prompt": "p"}\n{"id": \n')
    assert verigym("train", recipe, "--out", tmp_path / "run", "--set", f"families.0.tasks='{rows}'") == 2
    assert "line 2" in capsys.readouterr().err
