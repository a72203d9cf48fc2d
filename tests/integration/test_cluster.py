"""``verigym train --ray`` on three nodes of this machine: one process's losses, also while its parts die."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verigym.__main__ import main
from verigym.envs.sandbox import labels

from .machines import CLUSTER, Machines, titles
from .small_recipe import CODE, LEARNING, learned, train

docker = pytest.importorskip("docker")
pytest.importorskip("ray", reason="the extra cluster is not installed")
pytestmark = pytest.mark.slow

STEPS = 12
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """(that of one process, that of the cluster)."""
    folder = tmp_path_factory.mktemp("recipe")
    alone = f'name = "cluster"\nepisode_seconds = 3600\nsave_seconds = 0\n{CODE}{LEARNING}'
    alone = alone.replace("steps = 4\n\n[rl.train]", f"steps = {STEPS}\n\n[rl.train]")
    (folder / "alone.toml").write_text(alone)
    (folder / "cluster.toml").write_text(alone + CLUSTER.format(restarts=9))
    return folder / "alone.toml", folder / "cluster.toml"


@pytest.fixture(scope="module")
def alone(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    train((), recipe[0], out)
    return out


@pytest.fixture(scope="module")
def machines():
    found = Machines()
    yield found
    found.close()


def check_same(out, alone):
    for ours, expected in zip(learned(out, STEPS), learned(alone, STEPS), strict=True):
        assert ours == pytest.approx(expected, rel=1e-5, abs=1e-5)


def check_nothing_left(machines, out):
    deadline = time.monotonic() + 60
    while any(str(out) in name for _, name in titles()) or machines.processes("ray::EpisodeWorker"):
        assert time.monotonic() < deadline, "an engine or a worker outlives the run"
        time.sleep(0.2)
    assert not list(out.rglob(".partial-*"))
    assert not (out / "engines" / "weights").exists()


def test_three_nodes_have_the_losses_of_one_process(recipe, alone, machines, tmp_path):
    """Two trainer ranks, two engines and two episode workers."""
    out = tmp_path / "run"
    assert main(["train", str(recipe[1]), "--out", str(out), "--ray", machines.address]) == 0
    check_same(out, alone)
    check_nothing_left(machines, out)


def test_a_cluster_that_is_too_small_starts_nothing(recipe, machines, tmp_path, capsys):
    out = tmp_path / "run"
    options = ("--ray", machines.address, "--set", "cluster.workers=5", "--set", "cluster.rank_cpus=4")
    assert main(["train", str(recipe[1]), "--out", str(out), *options]) == 2
    told = capsys.readouterr().err
    assert "the cluster is too small: no place for 2 of 2 ranks (4 CPU each" in told
    assert "2 of 5 episode workers (1 CPU, 1 sandbox each" in told
    assert not out.exists()


def test_grading_on_all_machines_says_what_one_says(machines, tmp_path):
    data, predictions = tmp_path / "data.jsonl", tmp_path / "predictions.jsonl"
    tasks = [{"unique_id": f"a/{n}", "problem": f"{n} + 1?", "answer": str(n + 1)} for n in range(12)]
    rows = [{"task_id": f"a/{n}", "prediction": f"\\boxed{{{n + n % 2}}}"} for n in range(12)]
    for path, values in ((data, tasks), (predictions, rows)):
        path.write_text("".join(json.dumps(value) + "\n" for value in values))
    files = ("grade", "math500", "--data", str(data), "--predictions", str(predictions))
    found = []
    for name, more in (("here", ()), ("there", ("--ray", machines.address))):
        out = tmp_path / name
        assert main([*files, "--out", str(out), *more]) == 0
        lines = (json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines())
        found.append([(row["task_id"], row["passed"], row["ending"]) for row in lines])
    assert found[0] == found[1]
    assert {passed for _, passed, _ in found[0]} == {True, False}


def test_an_evaluation_on_all_machines_says_what_one_says(alone, machines, tmp_path):
    """With an engine that Ray places, and with a script."""
    tasks = alone / "tasks" / "code.held_out.jsonl"
    told = ("--data", str(tasks), "--sandbox", "local", "--samples", "2", "--max-tokens", "16", "--max-turns", "1")
    for policy in (f"engine:{alone / 'rl' / 'checkpoint'}", "gold"):
        found = []
        for name, more in (("here", ()), ("there", ("--ray", machines.address))):
            out = tmp_path / policy[:4] / name
            assert main(["eval", "verigym/Code-v0", "--policy", policy, *told, "--out", str(out), *more]) == 0
            lines = [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
            texts = [json.loads(line)["prediction"] for line in (out / "preds.jsonl").read_text().splitlines()]
            found.append([(row["task_id"], row["index"], row["passed"], row["ending"]) for row in lines] + [texts])
        assert found[0] == found[1]
        assert len(found[0]) == 9
        check_nothing_left(machines, out)


def containers_of(client, pid):
    rows = client.api.containers(all=True, filters={"label": labels.OWNER})
    return [row["Id"] for row in rows if json.loads(row["Labels"][labels.OWNER])["pid"] == str(pid)]


@pytest.mark.docker
def test_containers_of_a_dead_worker_are_removed(alone, machines, tmp_path):
    client = docker.from_env()
    tasks = alone / "tasks" / "code.held_out.jsonl"
    told = ("--data", str(tasks), "--sandbox", "docker", "--samples", "12", "--out", str(tmp_path / "out"))
    command = [sys.executable, "-m", "verigym", "eval", "verigym/Code-v0", "--policy", "gold", *told]
    running = subprocess.Popen([*command, "--ray", machines.address], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 400
    seen = set()
    try:
        while not any(containers_of(client, pid) for pid in machines.processes("ray::EpisodeWorker")):
            assert running.poll() is None, running.communicate()[1].decode()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        seen |= set(machines.processes("ray::EpisodeWorker"))
        assert machines.kill("ray::EpisodeWorker")
        _, said = running.communicate(timeout=400)
    finally:
        if running.poll() is None:
            running.kill()
    assert running.returncode == 0, said.decode()
    rows = [json.loads(line) for line in (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()]
    assert [row["passed"] for row in rows] == [True] * 48
    assert not [one for pid in seen for one in containers_of(client, pid)]
    client.close()


def test_the_doctor_looks_at_every_machine(machines, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--json", "--ray", machines.address]) == 0
    findings = {one["name"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert findings[f"folder {tmp_path}"]["value"] == "all machines see it"
    assert findings["episode workers"]["ok"]
    assert any(name.startswith("sandbox local on ") and one["ok"] for name, one in findings.items())
    assert "torch" in next(one["value"] for name, one in findings.items() if name.startswith("machine "))


def test_whatever_dies_the_losses_are_those_of_one_process(recipe, alone, machines, tmp_path):
    """A worker, an engine's server and its actor, a rank, the controller, a machine, one after another: every prompt is
    trained once, on the very episodes of an undisturbed run, or the losses would not be its."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "verigym", "train", str(recipe[1]), "--out", str(out), "--ray", machines.address]
    log = tmp_path / "log"
    with log.open("wb") as output:
        running = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    told, killed = out / "rl" / "metrics.jsonl", []
    try:
        todo = ["ray::EpisodeWorker", " serve ", "ray::TrainerRank", "ray::Engine", "ray::Controller", "machine"]
        deadline = time.monotonic() + 1500
        for number, what in enumerate(todo, start=1):
            while not (told.exists() and told.read_text().count("\n") >= number + 1):
                assert running.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            if machines.kill(what):
                killed.append(what)
        assert running.wait(max(1.0, deadline - time.monotonic())) == 0, log.read_text()
    finally:
        if running.poll() is None:
            running.kill()
    assert killed == todo
    check_same(out, alone)
    check_nothing_left(machines, out)


def test_chaos(tmp_path):
    """Every minute something dies, until each kind of part has."""
    told = tmp_path / "chaos.json"
    command = [sys.executable, "-m", "tests.integration.chaos", "--steps", "150", "--out", str(told)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2400, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(told.read_text())
    print(found)
    assert found["calm"]["status"] == found["wild"]["status"] == 0
    assert found["steps"] == [150, 150]
    assert found["largest_difference"] < 1e-5
    assert found["left"] == []
    assert len(found["wild"]["killed"]) >= 5
