"""A recipe on folders of Harbor's format: demonstrations by their solutions, imitation, reinforcement, evaluation."""

import json

import pytest

from verigym.__main__ import main
from verigym.envs.sandbox.runtime import runtime_python

from ..unit.envs.sandbox.archives import docker_archive, layer, member, programs_layer
from .small_recipe import metrics

NUM_TASKS = 6
TEST = """#!/bin/bash
if [ "$(cat answer)" = yes ]; then echo 1; else echo 0; fi > /logs/verifier/reward.txt
"""
RECIPE = """
name = "terminal"
sandbox = "oci"
threads = 1
control = false

[model]
vocab_size = 512
max_context = 512
tools = "taught"

[[families]]
name = "terminal"
env = "verigym/Harbor-v0"
tasks = "harbor:{}"
num_train = 0
num_held_out = 2
turns = 3
turn_tokens = 240
num_demonstrations = 8
experts = {{ gold = 0.75, empty = 0.25 }}

[sft.train]
max_steps = 120
batch_tokens = 1024
microbatch_tokens = 1024
eval_every = 60

[sft.optim]
matrices = "muon"
muon_lr = 2e-3
lr = 6e-3
warmup_steps = 5

[rl]
steps = 2

[rl.train]
num_tasks = 2
group_size = 4
microbatch_tokens = 1024
drop_uniform_groups = false
max_useless_steps = 99

[rl.optim]
lr = 1e-4

[eval]
samples = 1
controls = []
"""


@pytest.fixture
def tasks(tmp_path):
    """Folders whose image is an archive, so that no engine is asked."""
    app = layer(member("app/"))
    archive = tmp_path / "app.tar"
    docker_archive(archive, [programs_layer(runtime_python()), app], names=["test/app:1"], WorkingDir="/app")
    for number in range(NUM_TASKS):
        texts = {
            "task.toml": f'[environment]\ndocker_image = "docker-archive:{archive}"\n[agent]\ntimeout_sec = 60.0\n',
            "instruction.md": f"Write yes to answer, for the {number}th time.\n",
            "tests/test.sh": TEST,
            "solution/solve.sh": "#!/bin/bash\necho yes > answer\n",
        }
        for name, text in texts.items():
            path = tmp_path / "tasks" / f"write-{number}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return tmp_path / "tasks"


@pytest.mark.slow
@pytest.mark.usefixtures("local_sandbox")
def test_a_run_on_harbors_tasks(tasks, tmp_path, monkeypatch):
    monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path / "cache"))
    recipe, out = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text(RECIPE.format(tasks))
    assert main(["train", str(recipe), "--out", str(out)]) == 0
    shown = [json.loads(line) for line in (out / "demonstrations.jsonl").read_text().splitlines()]
    assert {(one["expert"], one["trajectory"]["ending"]) for one in shown} == {
        ("gold", "submitted"),
        ("empty", "submitted"),
    }
    assert json.loads((out / "report.json").read_text())["families"]["terminal"]["sft"]["greedy"] == 1.0
    steps = metrics(out, "rl")
    assert len(steps) == 2
    assert max(row["rollout/reward/mean"] for row in steps) > 0
