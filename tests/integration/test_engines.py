"""``verigym train`` with engines in processes of their own: what a run in one process learns."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from .small_recipe import CODE, LEARNING, TORCHRUN, command, learned, metrics, train

RECIPE = f"""
name = "engines"
episode_seconds = 3600
{CODE}
{LEARNING}
[rl.evaluation]
every = 2
num_tasks = 2
"""


def servers_of(out):
    """Process ids of the engines of a run."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"serve" in words and any(str(out).encode() in word for word in words):
            found.append(int(entry.name))
    return found


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def alone(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    train((), recipe, out)
    return out


@pytest.mark.parametrize("launcher", [(), pytest.param(TORCHRUN, marks=pytest.mark.slow)], ids=["one", "two"])
def test_the_losses_of_one_process(recipe, alone, tmp_path, launcher):
    """Two engines sample under each step's weights, evaluate in between, and are gone at the end."""
    out = tmp_path / "run"
    train(launcher, recipe, out, "--set", "engines.count=2")
    for ours, expected in zip(learned(out, 4), learned(alone, 4), strict=True):
        assert ours == pytest.approx(expected, rel=1e-5, abs=1e-5)
    rows, expected = (
        [json.loads(line) for line in (run / "rl" / "evaluations.jsonl").read_text().splitlines()]
        for run in (out, alone)
    )
    assert [(row["step"], row["families"]) for row in rows] == [(row["step"], row["families"]) for row in expected]
    assert sorted(path.name for path in (out / "engines").iterdir()) == ["engine-0.log", "engine-1.log"]
    assert not servers_of(out)


ASKER = """
import httpx
from verigym.agent.harness.spec import Done

class Asker:
    name = "asker"

    async def run(self, stage):
        at, key = f"{stage.beside.root}/v1/chat/completions", {"authorization": f"Bearer {stage.beside.key}"}
        body = {"model": stage.beside.model, "messages": [{"role": "user", "content": stage.prompt}]}
        async with httpx.AsyncClient(timeout=300) as client:
            answer = (await client.post(at, headers=key, json=body)).raise_for_status()
        return Done(exit="answered", submission=answer.json()["choices"][0]["message"]["content"] or "")
"""


@pytest.mark.slow
def test_an_agent_asks_two_engines_and_the_losses_are_those_of_one_process(recipe, tmp_path, monkeypatch):
    """Its gateway stands before the fleet: training, and evaluations in between."""
    (tmp_path / "asks.py").write_text(ASKER)
    monkeypatch.syspath_prepend(tmp_path)
    agent = ("--set", "families.0.agent.name=asks:Asker")
    for name, more in (("alone", ()), ("two", ("--set", "engines.count=2"))):
        train((), recipe, tmp_path / name, *agent, *more)
    for ours, expected in zip(learned(tmp_path / "two", 4), learned(tmp_path / "alone", 4), strict=True):
        assert ours == pytest.approx(expected, rel=1e-5, abs=1e-5)
    rows = metrics(tmp_path / "two", "rl")
    assert [row["rollout/failures/count"] for row in rows] == [0] * 4
    assert all(row["trainer/mismatch/max"] < 1e-5 for row in rows)
    assert not servers_of(tmp_path / "two")


def test_ahead_and_killed(recipe, tmp_path):
    """An engine samples while the trainer updates; it ends when that is killed, and a resume starts another."""
    out, ahead = tmp_path / "run", ("--set", "engines.count=1", "--set", "rl.asynchronous.max_lag=2")
    more = (*ahead, "--set", "save_seconds=0")
    process = subprocess.Popen(command((), recipe, out, *more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not list(out.glob("rl/steps/step-*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(servers_of(out)) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 30
    while servers_of(out):
        assert time.monotonic() < deadline, "the engine outlives the trainer"
        time.sleep(0.2)
    train((), recipe, out, *more, "--resume")
    rows = metrics(out, "rl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["trainer/lag/max"] <= 2 for row in rows)
    assert rows[-1]["trainer/groups_trained/total"] == 8
