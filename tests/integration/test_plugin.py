"""A plug-in environment in a package of its own trains and evaluates by its id alone."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import gymnasium
import pytest

from verigym.__main__ import main

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "verigym-secret"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The example as pip would install it: the module, and the metadata that names its entry points."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    shutil.copy(EXAMPLE / "verigym_secret.py", site)
    info = site / f"verigym_secret-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    entries = project["entry-points"]["verigym.envs"]
    (info / "entry_points.txt").write_text("[verigym.envs]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()))
    return site


@pytest.fixture
def verigym(installed, tmp_path, monkeypatch, capsys):
    """Run the command in a folder of its own, where nothing but the plug-in's id is known."""
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.chdir(tmp_path)
    assert "secret/Secret-v0" not in gymnasium.registry

    def verigym(*argv):
        assert main(argv) == 0
        return capsys.readouterr().out

    yield verigym
    gymnasium.registry.pop("secret/Secret-v0", None)
    sys.modules.pop("verigym_secret", None)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_is_short():
    lines = (EXAMPLE / "verigym_secret.py").read_text().splitlines()
    assert len([line for line in lines if line.strip()]) < 30


def test_it_trains_for_two_steps_and_evaluates(verigym, tmp_path):
    told = verigym("train", str(EXAMPLE / "recipe.toml"), "--out", "run", "--set", "threads=1")
    run = tmp_path / "run"
    report = json.loads((run / "report.json").read_text())
    assert {"sft", "rl"} <= set(report["families"]["secret"])
    assert report["families"]["secret"]["gold"]["pass@1"] == 1.0
    assert report["families"]["secret"]["empty"]["pass@1"] == 0.0
    assert report["families"]["secret"]["rl"]["n"] == 4
    for stage in ("sft", "rl"):
        assert [row["step"] for row in rows(run / stage / "metrics.jsonl")] == [1, 2]

    (closing,) = [line for line in told.splitlines() if line.startswith("next: ")]
    program, *words = shlex.split(closing.removeprefix("next: "))
    assert program == "verigym"
    assert "4 of 4" in verigym(*words)  # the command that a run prints last can be typed

    printed = verigym("eval", "secret/Secret-v0", "--policy", "engine:run/rl/checkpoint", "--out", "eval")
    assert "secret/Secret-v0" in printed
    assert len(rows(tmp_path / "eval" / "verdicts.jsonl")) == 10
    found = json.loads((tmp_path / "eval" / "report.json").read_text())
    assert (found["num_tasks"], found["num_infrastructure_failures"]) == (10, 0)


def test_it_rolls_out(installed, tmp_path):
    command = [sys.executable, "-m", "verigym", "rollout", "secret/Secret-v0", "--task", "digit-3"]
    env = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "it is 3" in done.stdout
    assert "ended: answered, passed, reward 1" in done.stdout
