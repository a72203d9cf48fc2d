"""Every tracker for real and offline: one run of it for a training, over Ctrl-C and a resume, in one process and two.

The packages are those of the extra ``trackers``.
"""

import importlib.util
import json
import os
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from .small_recipe import CODE, LEARNING, TORCHRUN, command

RECIPE = f"""
name = "tracked"
episode_seconds = 3600
save_seconds = 0
{CODE}
{LEARNING}"""
STEPS = {"sft": 4, "rl": 4}
pytestmark = pytest.mark.slow


def tensorboard_runs(home: Path, out: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = {path.parent for path in out.rglob("events.out.tfevents.*")}
    runs = {}
    for folder in folders:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        runs[str(folder)] = {name: [one.step for one in events.Scalars(name)] for name in events.Tags()["scalars"]}
    return runs


def wandb_records(path: Path):
    """Records of a file in LevelDB's log format: blocks of 32 KiB, each part with its checksum, length and kind."""
    data, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def wandb_runs(home: Path, out: Path):
    from wandb.proto import wandb_internal_pb2

    runs: dict[str, dict[str, list[int]]] = {}
    for path in sorted(out.glob("wandb/offline-run-*/run-*.wandb")):  # a file a sitting, which `wandb sync` joins by id
        run_id = ""
        for data in wandb_records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                run_id = record.run.run_id
            if record.HasField("history"):
                items = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
                for name, value in items.items():
                    if name.endswith("/step"):
                        runs.setdefault(run_id, {}).setdefault(name, []).append(value)
    return runs


def trackio_runs(home: Path, out: Path):
    runs: dict[str, dict[str, list[int]]] = {}
    for path in home.rglob("tracked*.db"):
        with sqlite3.connect(path) as base:
            for run, metrics in base.execute("select run_name, metrics from metrics order by id"):
                for name, value in json.loads(metrics).items():
                    if name.endswith("/step"):
                        runs.setdefault(run, {}).setdefault(name, []).append(value)
    return runs


def mlflow_runs(home: Path, out: Path):
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{home}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'tracked'")
    runs = {}
    for run in client.search_runs([experiment.experiment_id]):
        found = {}
        for name in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, name)
            found[name] = [int(one.value) if name.endswith("/step") else one.step for one in history]
        runs[run.info.run_id] = found
    return runs


READERS = {
    "tensorboard": tensorboard_runs,
    "wandb": wandb_runs,
    "trackio": trackio_runs,
    "mlflow": mlflow_runs,
}


@pytest.mark.parametrize("launcher", [(), TORCHRUN], ids=["one process", "torchrun"])
@pytest.mark.parametrize("name", READERS)
def test_one_run_over_a_ctrl_c_and_a_resume(name, launcher, tmp_path):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed; pip install 'verigym[trackers]'")
    recipe, out, home = tmp_path / "recipe.toml", tmp_path / "out", tmp_path / "home"
    recipe.write_text(RECIPE)
    home.mkdir()
    offline = {
        "WANDB_MODE": "offline",
        "TRACKIO_DIR": str(home),
        "HF_HUB_OFFLINE": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
        "OMP_NUM_THREADS": "1",
    }
    words = command(launcher, recipe, out, "--set", f"tracker={name}")
    first = subprocess.Popen(
        words, env=os.environ | offline, cwd=home, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = out / "rl" / "metrics.jsonl"
    while first.poll() is None and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGINT)
    _, told = first.communicate(timeout=300)
    assert first.returncode in (0, 1, 130), told
    if first.returncode:
        done = subprocess.run(
            [*words, "--resume"], env=os.environ | offline, cwd=home, capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr

    runs = READERS[name](home, out)
    (run,) = runs.values()
    for stage, steps in STEPS.items():
        expected = list(range(1, steps + 1))
        offset = 0 if name != "tensorboard" or stage == "sft" else STEPS["sft"]
        assert run[f"{stage}/step"] == [step + offset for step in expected]
