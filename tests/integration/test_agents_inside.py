"""``verigym eval --agent mini-swe-agent-inside``: mini-swe-agent as it is published, a process of a container without a
network, mends a repository with a model of ours, embedded and served. docs/agents.md says how its image is made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from verigym.__main__ import main
from verigym.agent.trajectory import Trajectory
from verigym.envs.datasets.swe_examples import example_tasks
from verigym.envs.sandbox.images import ensure_base_image
from verigym.errors import SandboxError

from .repair_by_heart import CONFIG, knows_the_repair
from .test_mini_swe_agent import TOOL
from .test_serve import serving

pytestmark = [pytest.mark.docker, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def dockerfile() -> str:
    """What docs/agents.md says."""
    text = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")
    return text.split("```dockerfile\n")[1].split("```")[0]


@pytest.fixture(scope="module")
def image():
    """The base image with mini-swe-agent in it."""
    import docker
    from docker.errors import DockerException

    folder = ROOT / "build" / "mini-swe-agent"
    wheels = folder / "wheels"
    try:
        client = docker.from_env()
        base = ensure_base_image(client)
        if not wheels.exists():
            argv = [sys.executable, "-m", "pip", "download", "-q", "-d", str(wheels) + ".new", "mini-swe-agent>=2.4,<3"]
            subprocess.run(argv, check=True, capture_output=True)
            os.rename(str(wheels) + ".new", wheels)
    except (DockerException, SandboxError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no image of mini-swe-agent can be made here: {error}")
    (folder / "Dockerfile").write_text(dockerfile())
    argv = [
        "docker",
        "build",
        "-q",
        "--network",
        "none",
        "--build-arg",
        f"BASE={base}",
        "-t",
        "verigym/test-mini:1",
        ".",
    ]
    subprocess.run(argv, cwd=folder, check=True, capture_output=True)
    yield "verigym/test-mini:1"
    client.close()


@pytest.fixture(scope="module")
def built(image, tmp_path_factory):
    """The first example's row, with an image on that one."""
    import docker

    folder = tmp_path_factory.mktemp("rows")
    (task, *_) = example_tasks()
    (folder / "rows.jsonl").write_text(json.dumps(dict(task.hidden)) + "\n")
    argv = ["tasks", "build-images", str(folder / "rows.jsonl"), "--out", str(folder / "built.jsonl"), "--base", image]
    assert main(argv) == 0
    yield folder / "built.jsonl"
    client = docker.from_env()
    for line in (folder / "built.jsonl").read_text().splitlines():
        client.images.remove(json.loads(line)["image"], force=True)
    client.close()


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A model that knows by heart how the first example is mended."""
    return knows_the_repair(tmp_path_factory.mktemp("agents") / "taught", TOOL)


@pytest.mark.parametrize("how", ["embedded", "served"])
def test_mini_swe_agent_mends_a_repository_from_inside(how, built, taught, tmp_path):
    (tmp_path / "short.yaml").write_text(CONFIG)
    argv = ["eval", "swe", "--data", str(built), "--sandbox", "docker", "--greedy", "--max-tokens", "100"]
    argv += ["--agent", f"mini-swe-agent-inside:{tmp_path / 'short.yaml'}", "--out", str(tmp_path / "run")]
    argv += ["--save-trajectories", "--workers", "1"]
    if how == "embedded":
        assert main([*argv, "--policy", f"engine:{taught}"]) == 0
    else:
        with serving(taught, "--logprobs-mode", "processed_logprobs") as (url, _):
            assert main([*argv, "--policy", f"tokens:{taught}@{url.removesuffix('/v1')}#taught"]) == 0
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "trajectories.jsonl").read_text().splitlines()]
    row.pop("index")
    episode = Trajectory.from_json(row)
    assert (episode.ending, episode.reward, episode.num_turns) == ("answered", 1.0, 2), episode
    assert episode.agent["exit"] == "Submitted"
    (segment,) = episode.segments
    assert sum(segment.loss_mask) == episode.num_sampled > 0
    assert json.loads((tmp_path / "run" / "report.json").read_text())["pass@1"] == 1.0
