"""Trackers through accelerate: one run for a whole training, stages as prefixes, over resumes too."""

import json
import subprocess
import sys

import pytest

from verigym.errors import ConfigError
from verigym.trainer.loops.metrics import MetricsWriter
from verigym.trainer.loops.trackers import RunTracker, check_tracker


@pytest.fixture
def told(monkeypatch):
    """What a tracker that a user registered with accelerate is told: (event, ...) in order."""
    from accelerate import tracking

    events = []

    class Remembering(tracking.GeneralTracker):
        name = "remembering"
        requires_logging_directory = True
        tracker = None

        def __init__(self, run_name, logging_dir):
            super().__init__()
            self.made = run_name, logging_dir

        def start(self):
            events.append(("start", *self.made))

        def store_init_configuration(self, values):
            events.append(("config", values))

        def log(self, values, step=None, **kwargs):
            events.append(("log", step, values))

        def finish(self):
            events.append(("finish",))

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "remembering", Remembering)
    return events


def sitting(folder, stages):
    """One sitting of a training: (stage, resumed at, steps to do) each."""
    tracker = RunTracker("remembering", project="recipe", folder=folder, config={"rl": {"steps": 4}})
    before = 0
    for stage, done, steps in stages:
        path = folder / stage / "metrics.jsonl"
        with MetricsWriter(path, resume_step=done, tracker=tracker.stage(stage, steps_before=before)) as writer:
            for step in range(done + 1, done + steps + 1):
                writer.write(step, {"trainer/loss/mean": 1 / step, "trainer/bad/mean": float("nan")})
        before += done + steps
    tracker.finish()


def test_one_run_for_all_stages_whose_steps_never_fall(told, tmp_path):
    sitting(tmp_path, [("sft", 0, 3), ("rl", 0, 2)])
    assert told == [
        ("start", "recipe", str(tmp_path)),
        ("config", {"rl/steps": 4}),
        ("log", 1, {"sft/trainer/loss/mean": 1.0, "sft/step": 1}),
        ("log", 2, {"sft/trainer/loss/mean": 1 / 2, "sft/step": 2}),
        ("log", 3, {"sft/trainer/loss/mean": 1 / 3, "sft/step": 3}),
        ("log", 4, {"rl/trainer/loss/mean": 1.0, "rl/step": 1}),
        ("log", 5, {"rl/trainer/loss/mean": 1 / 2, "rl/step": 2}),
        ("finish",),
    ]


def test_a_resume_goes_on_with_the_run_and_tells_no_step_twice(told, tmp_path):
    sitting(tmp_path, [("sft", 0, 5)])
    assert json.loads((tmp_path / "tracker.json").read_text()) == {"tracker": "remembering", "run": "files"}
    sitting(tmp_path, [("sft", 3, 4)])  # its last save was that of step 3
    steps = [event[1] for event in told if event[0] == "log"]
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    assert [event[0] for event in told].count("config") == 1


def test_a_broken_file_of_the_run_is_told(told, tmp_path):
    (tmp_path / "tracker.json").write_text("")
    with pytest.raises(ConfigError, match=r"tracker\.json, the tracker's run, is empty; remove it"):
        RunTracker("remembering", project="recipe", folder=tmp_path, config={})


def test_accelerate_is_asked_which_process_this_is(tmp_path):
    """In a process in which nothing of accelerate was set up, as training in one process is."""
    script = """
import sys
from pathlib import Path
from accelerate import tracking
from accelerate.logging import get_logger
from verigym.trainer.loops.trackers import RunTracker

class Logging(tracking.GeneralTracker):
    name, requires_logging_directory, tracker = "logging", False, None
    def __init__(self, run_name):
        super().__init__()
    @tracking.on_main_process
    def start(self):
        get_logger("x").debug("raises where the state is not there")
    @tracking.on_main_process
    def store_init_configuration(self, values): pass
    @tracking.on_main_process
    def log(self, values, step=None): print("told", step, flush=True)
    def finish(self): pass

tracking.LOGGER_TYPE_TO_CLASS["logging"] = Logging
tracker = RunTracker("logging", project="p", folder=Path(sys.argv[1]), config={})
tracker.stage("sft", steps_before=2).log({"a": 1.0}, step=1)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("told 3\n", 0), done.stderr


@pytest.mark.parametrize("name", ["wandb", "trackio", "tensorboard", "mlflow"])
def test_a_missing_package_is_told_before_anything_starts(name, tmp_path, monkeypatch, capsys):
    from accelerate import tracking

    from verigym.__main__ import main

    monkeypatch.setattr(tracking, "_available_trackers", [])
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'name = "small"\ntracker = "{name}"\n[[families]]\nname = "math"\nenv = "verigym/Math-v0"\n'
        'tasks = "small-sums"\nnum_train = 4\nnum_held_out = 2\n'
    )
    for more in ([], ["--dry-run"]):
        assert main(["train", str(path), "--out", str(tmp_path / "out"), *more]) == 2
        assert f"tracker '{name}' is not installed; pip install {name}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    check_tracker(None)
