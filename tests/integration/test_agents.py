"""``verigym eval --agent``: mini-swe-agent as it is published mends a repository with a model of ours, embedded and
served; its episodes are read by the viewer and the trainer."""

import json
from pathlib import Path

import pytest

from verigym.__main__ import main
from verigym.agent.trajectory import Trajectory
from verigym.trainer.learning.experience import experience_of
from verigym.trainer.recipe.algorithms import GRPOConfig

from .repair_by_heart import CONFIG, SUBMIT, knows_the_repair
from .test_serve import serving

RECIPE = Path(__file__).parents[2] / "recipes" / "mini-swe-agent.toml"
TWO_STEPS = ["families.0.num_train=8", "families.0.num_held_out=2", "families.0.num_demonstrations=12", "control=false"]
TWO_STEPS += ["sft.train.max_steps=30", "sft.optim.total_steps=30", "rl.steps=2", "rl.asynchronous=false"]
TWO_STEPS += ["rl.train.num_tasks=2", "rl.train.group_size=3", "rl.train.num_epochs=1", "rl.optim.total_steps=4"]
TWO_STEPS += ["rl.train.drop_uniform_groups=false", "rl.train.max_useless_steps=99", "rl.train.entropy_coef=0.01"]
TWO_STEPS += ["eval.greedy=false", "record.tokens=1.0", "overlap=false"]

pytest.importorskip("minisweagent", reason="the extra agents has it")


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A model that knows by heart how the first example is mended."""
    from minisweagent.models.utils.actions_toolcall import BASH_TOOL

    return knows_the_repair(tmp_path_factory.mktemp("agents") / "taught", BASH_TOOL)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["embedded", "served"])
def test_mini_swe_agent_mends_a_repository(how, taught, tmp_path, capsys):
    (tmp_path / "short.yaml").write_text(CONFIG)
    argv = ["eval", "verigym/SWE-v0", "--limit", "1", "--sandbox", "local", "--greedy", "--max-tokens", "100"]
    argv += ["--agent", f"mini-swe-agent:{tmp_path / 'short.yaml'}", "--out", str(tmp_path / "run")]
    argv += ["--save-trajectories", "--workers", "1"]
    if how == "embedded":
        assert main([*argv, "--policy", f"engine:{taught}"]) == 0
    else:
        with serving(taught, "--logprobs-mode", "processed_logprobs") as (url, _):
            root = url.removesuffix("/v1")
            assert main([*argv, "--policy", f"tokens:{taught}@{root}#taught"]) == 0
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "trajectories.jsonl").read_text().splitlines()]
    row.pop("index")
    episode = Trajectory.from_json(row)
    assert (episode.ending, episode.reward, episode.num_turns) == ("answered", 1.0, 2), episode
    assert episode.agent["exit"] == "Submitted"
    (segment,) = episode.segments
    assert sum(segment.loss_mask) == episode.num_sampled
    assert all(value <= 0 for value, mask in zip(segment.logprobs, segment.loss_mask, strict=True) if mask)
    failed = Trajectory.from_json({**row, "reward": 0.0})
    found = experience_of([episode, failed], GRPOConfig())
    assert [len(documents) for documents in found.documents] == [1, 1]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["pass@1"] == 1.0
    assert main(["view", str(tmp_path / "run"), "--html", str(tmp_path / "page.html")]) == 0
    assert "2 " in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_a_run_through_mini_swe_agent(tmp_path):
    """Demonstrations, two steps and evaluations; what was sampled is what is trained."""
    out = tmp_path / "run"
    sets = [word for one in TWO_STEPS for word in ("--set", one)]
    assert main(["train", str(RECIPE), "--out", str(out), *sets]) == 0
    shown = [json.loads(line) for line in (out / "demonstrations.jsonl").read_text().splitlines()]
    assert len(shown) == 12
    for row in shown:
        assert [tool["function"]["name"] for tool in row["tools"]] == ["bash"]
        assert row["trajectory"]["messages"][0]["content"] == "Mend the repository."
        assert row["trajectory"]["messages"][-1]["calls"][0]["arguments"]["command"] == SUBMIT
    steps = [json.loads(line) for line in (out / "rl" / "metrics.jsonl").read_text().splitlines()]
    assert [one["rollout/episodes/count"] for one in steps] == [6, 6]
    assert all(one["trainer/mismatch/max"] < 1e-5 for one in steps)
    assert all(one["rollout/failures/count"] == 0 for one in steps)
    (path,) = (out / "rl" / "episodes").glob("*.jsonl")
    lived = [json.loads(line) for line in path.read_text().splitlines()]
    assert {one["agent"]["name"] for one in lived} == {f"mini-swe-agent:{RECIPE.with_suffix('.yaml')}"}
    report = json.loads((out / "report.json").read_text())
    assert {"sft", "rl"} <= set(report["families"]["swe"])
