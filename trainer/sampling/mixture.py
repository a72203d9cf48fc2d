"""Tasks of several families in one stream, each family in its stated share."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ...agent.trajectory import Trajectory
from ...envs.task import Task
from ..recipe.config import DifficultyConfig
from .difficulty import DifficultyStream
from .rollouts import TaskStream


class TaskMixture:
    """Gives every family its share of each step, in an order of its own that survives a resume."""

    def __init__(
        self,
        tasks: Mapping[str, Sequence[Task]],
        weights: Mapping[str, float],
        *,
        seed: int = 0,
        difficulty: DifficultyConfig | None = None,
        shares: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            tasks: family -> its training tasks.
            weights: family -> its share, above 0; they need not sum to 1.
            difficulty: which tasks of a family rest, and the order of the others; None: all of them, at random.
            shares: family -> task id -> share of the epochs that the task takes part in; 1 for those left out.
        Raises:
            ValueError: two families have a task of the same family and id, which would not tell them apart.
        """
        self._streams: dict[str, TaskStream | DifficultyStream] = {
            name: TaskStream(some, seed=seed, weights=shares.get(name))
            if difficulty is None
            else DifficultyStream(some, difficulty, seed=seed, name=name, weights=shares.get(name))
            for name, some in tasks.items()
        }
        total = sum(weights[name] for name in tasks)
        self._shares = {name: weights[name] / total for name in tasks}
        self._owed = dict.fromkeys(tasks, 0.0)
        self._names: dict[tuple[str, str], str] = {}
        for name, some in tasks.items():
            for task in some:
                other = self._names.setdefault((task.family, task.id), name)
                if other != name:
                    raise ValueError(f"task {task.id!r} is in {other!r} and in {name!r}; give one of them another id")

    def name_of(self, task: Task) -> str:
        """The family a task was given under."""
        return self._names[task.family, task.id]

    def family_of(self, family: str, task_id: str) -> str:
        """The same, of a task's own family and id, as trajectories have them."""
        return self._names[family, task_id]

    def observe(self, trajectories: Sequence[Trajectory]) -> None:
        """Tell each family's stream of the episodes of its tasks."""
        by_family: dict[str, list[Trajectory]] = {}
        for one in trajectories:
            if one.speaker:  # of another seat: no attempt at the task
                continue
            by_family.setdefault(self._names[one.family, one.task_id], []).append(one)
        for name, some in by_family.items():
            self._streams[name].observe(some)

    def measure(self, name: str, results: Mapping[str, tuple[int, int]]) -> None:
        """Tell a family's stream what its tasks came to before training: task id -> (passed, graded)."""
        stream = self._streams[name]
        assert isinstance(stream, DifficultyStream), "only with difficulty are tasks measured"
        stream.measure(results)

    def take(self, count: int) -> list[Task]:
        """The next ``count`` tasks. After any number of them each family has had its share to within one task.

        Of the families that are owed something, the one that would soonest be owed a whole task comes first. (To
        choose the one owed most can leave another more than a task behind.)
        """
        taken: list[Task] = []
        for _ in range(count):
            for name, share in self._shares.items():
                self._owed[name] += share
            due = [name for name, owed in self._owed.items() if owed > 1e-9]
            name = min(due, key=lambda one: (1 - self._owed[one]) / self._shares[one])
            self._owed[name] -= 1
            taken += self._streams[name].take(1)
        return taken

    def find(self, family: str, task_id: str) -> Task:
        """Raises KeyError where there is no such task."""
        return self._streams[self._names[family, task_id]].find(family, task_id)

    def state_dict(self) -> dict[str, Any]:
        return {
            "owed": dict(self._owed),
            "streams": {name: stream.state_dict() for name, stream in self._streams.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._owed = dict(state["owed"])
        for name, stream in self._streams.items():
            stream.load_state_dict(state["streams"][name])
