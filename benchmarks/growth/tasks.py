"""Tasks: read, kept apart from held-out ones, drawn epoch after epoch."""

from pathlib import Path

from verigym.envs.task import Task, read_jsonl, write_jsonl
from verigym.trainer.recipe.config import DifficultyConfig
from verigym.trainer.sampling.difficulty import DifficultyStream
from verigym.trainer.sampling.held_out import HeldOut
from verigym.trainer.sampling.rollouts import TaskStream

from .harness import Subject, Work


def _tasks(size: int) -> list[Task]:
    return [
        Task(id=str(n), family="code", prompt=f"Write a function that adds {n} to its argument.") for n in range(size)
    ]


def read(size: int, folder: Path) -> Work:
    write_jsonl(folder / "tasks", (task.to_json() for task in _tasks(size)))
    return lambda: [Task.from_json(row) for row in read_jsonl(folder / "tasks")] and None


def apart(size: int, folder: Path) -> Work:
    """Each compared with a hundred held-out ones, of a run and of a suite."""
    held_out = HeldOut([Task(id=f"h{n}", family="code", prompt=f"Sort {n} numbers.") for n in range(100)])
    tasks = _tasks(size)
    return lambda: [held_out.of_task(task) for task in tasks] and None


def drawn(size: int, folder: Path) -> Work:
    """Two epochs, a task at a time."""
    stream = TaskStream(_tasks(size), seed=0)
    return lambda: [stream.take(1) for _ in range(2 * size)] and None


def frontier(size: int, folder: Path) -> Work:
    """An epoch's number of draws, by difficulty."""
    stream = DifficultyStream(_tasks(size), DifficultyConfig(order="frontier"), seed=0, name="code")
    stream.measure({str(n): (n % 5, 4) for n in range(size) if n % 5 < 5})
    return lambda: [stream.take(1) for _ in range(size)] and None


_SIZES, _QUICK = (4_000, 16_000, 64_000, 256_000), (1_000, 4_000, 16_000, 64_000)
SUBJECTS = {
    "read": Subject(make=read, sizes=_SIZES, quick=_QUICK, unit="tasks"),
    "kept apart": Subject(
        make=apart, sizes=(1_563, 6_250, 25_000, 100_000), quick=(100, 400, 1_600, 6_400), unit="tasks"
    ),
    "drawn": Subject(make=drawn, sizes=_SIZES, quick=_QUICK, unit="tasks"),
    "drawn by difficulty": Subject(make=frontier, sizes=_SIZES, quick=_QUICK, unit="tasks"),
}
