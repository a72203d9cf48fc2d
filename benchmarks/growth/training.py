"""A training of many steps: its metrics and its checkpoint, when it is resumed; groups that wait for an update."""

import json
from pathlib import Path

from verigym.agent.trajectory import Segment, Trajectory
from verigym.envs.task import Task
from verigym.trainer.loops.groups import Group
from verigym.trainer.loops.metrics import MetricsWriter
from verigym.trainer.sampling.rollouts import Rollouts

from .harness import Subject, Work


def steps(size: int, folder: Path) -> Work:
    """``size`` steps written one by one."""
    row = {f"trainer/metric{n}/mean": 0.5 for n in range(40)}

    def work() -> None:
        with MetricsWriter(folder / "metrics.jsonl") as writer:
            for step in range(1, size + 1):
                writer.write(step, row)

    return work


def resumed(size: int, folder: Path) -> Work:
    """A run opened again after ``size`` steps, one of which is made again."""
    row = {f"trainer/metric{n}/mean": 0.5 for n in range(40)}
    with (folder / "metrics.jsonl").open("w") as file:
        file.writelines(json.dumps({"step": step, "seconds": 1.0, **row}) + "\n" for step in range(1, size + 1))

    def work() -> None:
        with MetricsWriter(folder / "metrics.jsonl", resume_step=size - 1) as writer:
            writer.write(size, row)

    return work


def _group(tokens: int) -> Group:
    columns = {"loss_mask": [True] * tokens, "logprobs": [-0.5] * tokens, "policy_version": [3] * tokens}
    segment = Segment(token_ids=list(range(tokens)), roles=["assistant"] * tokens, **columns)  # type: ignore[arg-type]
    episode = Trajectory(task_id="a", family="f", ending="answered", segments=(segment,), reward=1.0)
    return Group(number=0, task=Task(id="a", family="f", prompt=""), rollouts=Rollouts(trajectories=(episode,)))


def waiting(size: int, folder: Path) -> Work:
    """A group of so many tokens saved with a checkpoint, and read again."""
    group = _group(size)
    return lambda: Group.from_json(group.to_json(), lambda family, name: group.task) and None


_QUICK = (625, 2_500, 10_000, 40_000)
SUBJECTS = {
    "steps written": Subject(make=steps, sizes=(1_250, 5_000, 20_000, 80_000), quick=_QUICK, unit="steps"),
    "steps, resumed": Subject(make=resumed, sizes=(1_250, 5_000, 20_000, 80_000), quick=_QUICK, unit="steps"),
    "tokens of a group that waits": Subject(
        make=waiting,
        sizes=(62_500, 250_000, 1_000_000, 4_000_000),
        quick=(8_000, 32_000, 128_000, 512_000),
        unit="tokens",
    ),
}
