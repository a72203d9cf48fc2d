"""The wheel in an environment and a folder of its own: what a user has who never saw the repository."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with the wheel alone; dependencies are those of the environment that runs the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / "source" / name)
    build = f"import setuptools.build_meta as b; b.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=folder / "source", check=True, capture_output=True)
    shutil.rmtree(folder / "source")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    # Links in a folder that is only listed are not followed: the editable install of the repository is not seen.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", *folder.glob("*.whl")], check=True)
    return environment


@pytest.fixture
def run(installed, tmp_path):
    def run(*command, **changed):
        env = {**os.environ, "OMP_NUM_THREADS": "1", **changed}
        program, *words = map(str, command)
        command = [installed / "bin" / program, *words]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=1800, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_package_is_the_wheels(run, installed):
    where = run("python", "-P", "-c", "import verigym; print(verigym.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    assert "verigym " in run("verigym", "--version")


def test_recipes_and_examples_come_along(run, tmp_path):
    listed = run("verigym", "recipes", "list")
    assert {"quickstart", "smoke", "verigym-secret"} <= set(listed.split())
    run("verigym", "recipes", "copy", "smoke", "--out", "mine/smoke.toml")
    assert (tmp_path / "mine" / "smoke.toml").read_bytes() == (ROOT / "recipes" / "smoke.toml").read_bytes()
    run("verigym", "train", "mine/smoke.toml", "--dry-run")
    run("verigym", "plan", "cwm-32b-grpo", "--gpus", "64", "--quick", "--skip-naive")


def test_a_copied_plug_in_trains(run, installed, tmp_path):
    run("verigym", "recipes", "copy", "verigym-secret")
    project = tmp_path / "verigym-secret"
    pip = [sys.executable, "-m", "pip", "--python", installed / "bin" / "python", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", "--no-build-isolation", project], check=True)
    assert "pass@1" in run("verigym", "train", "verigym-secret/recipe.toml", "--out", "run", "--set", "threads=1")
    assert json.loads((tmp_path / "run" / "report.json").read_text())["families"]["secret"]["gold"]["pass@1"] == 1.0


def test_the_quick_demo_runs_to_its_end(run, tmp_path, local_sandbox):
    printed = run("verigym", "demo", "--quick")
    out = tmp_path / "runs" / "quick"
    report = json.loads((out / "report.json").read_text())
    assert {"sft", "rl"} <= set(report["mean"])
    assert report["num_infrastructure_failures"] == 0
    assert "pass@1 on held-out tasks" in printed
    assert (out / "curves.png").exists()
