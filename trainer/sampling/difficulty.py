"""A stream of tasks that knows how often each was solved: too easy and too hard ones rest, the others have an order."""

import heapq
import random
from collections.abc import Mapping, Sequence
from typing import Any

from ...agent.trajectory import Trajectory
from ...envs.task import Task
from ...errors import TrainingError
from ..recipe.config import DifficultyConfig
from .rollouts import is_in_epoch, shuffled
from .weights import Weights

NEVER = 1 << 60
VERSION = 2
"""Of how "frontier" draws."""


class DifficultyStream:
    """Tasks by measured pass rate, each at most once an epoch (``order = "frontier"`` draws with replacement).

    Its state holds the rates, who rests until when, and the rest of the epoch's order itself, so that a resumed stream
    goes on exactly, whatever the rates have become. Where nothing rests, "random" is the order of ``TaskStream``.

    A draw of "frontier" goes down a tree of weights. A stream resumed from a state without "version" draws on as that
    one did, from a list of all: sums in another order may round to another task.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        config: DifficultyConfig,
        *,
        seed: int = 0,
        name: str = "",
        weights: Mapping[str, float] | None = None,
    ) -> None:
        """
        Args:
            name: of the family, for messages.
            weights: task id -> share of the epochs, or of the draws, that a task takes part in; 1 for those left out.
        """
        if not tasks:
            raise ValueError("there is no task to train on; give at least one")
        self._tasks, self._config, self._seed, self._name = tuple(tasks), config, seed, name
        self._shares = {n: weights[task.id] for n, task in enumerate(tasks) if weights and task.id in weights}
        self._place = {(task.family, task.id): index for index, task in enumerate(tasks)}
        self._passed = [0.0] * len(tasks)
        self._graded = [0.0] * len(tasks)
        self._back = [0] * len(tasks)  # the first epoch that a task may be in
        self._epoch = -1
        self._left: list[int] = []  # the last is next
        self._num_drawn = 0
        self._version = VERSION
        self._weights: Weights | None = None
        self._waking: list[tuple[int, int]] = []  # a heap of (epoch, task) that rest until then

    def take(self, count: int) -> list[Task]:
        """The next tasks.

        Raises:
            TrainingError: every task rests, so that no epoch can begin.
        """
        draw = self._draw if self._config.order == "frontier" else self._next
        return [self._tasks[draw()] for _ in range(count)]

    def rate(self, task: Task) -> float | None:
        """Share of the task's episodes that passed, later ones counting more; None: it has none yet."""
        return self._rate(self._place[task.family, task.id])

    def observe(self, trajectories: Sequence[Trajectory]) -> None:
        """Learn from episodes of these tasks. Those that the infrastructure failed say nothing."""
        found: dict[int, list[bool]] = {}
        for one in trajectories:
            if one.passed is not None:
                found.setdefault(self._place[one.family, one.task_id], []).append(one.passed)
        for index, passed in found.items():
            self._count(index, sum(passed), len(passed))

    def measure(self, results: Mapping[str, tuple[int, int]]) -> None:
        """Take in what the tasks came to before training: task id -> (passed, graded)."""
        for (_, task_id), index in self._place.items():
            passed, graded = results.get(task_id, (0, 0))
            if graded:
                self._count(index, passed, graded)

    def _count(self, index: int, passed: float, graded: float) -> None:
        memory = self._config.memory
        self._passed[index] = memory * self._passed[index] + passed
        self._graded[index] = memory * self._graded[index] + graded
        rate = self._rate(index)
        if rate is not None and (rate in (0.0, 1.0) or not self._config.low <= rate <= self._config.high):
            rest = self._config.rest_epochs
            self._back[index] = self._current_epoch() + 1 + rest if rest else NEVER
        else:
            self._back[index] = 0
        self._weigh(index)

    def _rate(self, index: int) -> float | None:
        return self._passed[index] / self._graded[index] if self._graded[index] else None

    def _current_epoch(self) -> int:
        return self._num_drawn // len(self._tasks) if self._config.order == "frontier" else self._epoch

    def _next(self) -> int:
        if not self._left:
            self._epoch += 1
            awake = self._awake(self._epoch)
            wanted = {n for n in awake if is_in_epoch(self._shares.get(n, 1.0), self._seed, n, self._epoch)}
            awake = wanted or awake  # an epoch of nobody would never end
            order = shuffled(len(self._tasks), self._seed, self._epoch)
            self._left = [index for index in order if index in awake]
            if self._config.order == "easy_first":
                rates = [self._rate(index) for index in range(len(self._tasks))]
                self._left.sort(key=lambda index: -(0.5 if (rate := rates[index]) is None else rate))
            self._left.reverse()
        return self._left.pop()

    def _draw(self) -> int:
        if self._version == 1:
            return self._draw_from_all()
        weights = self._tree()
        epoch = self._current_epoch()
        while self._waking and self._waking[0][0] <= epoch:
            weights.set(index := heapq.heappop(self._waking)[1], self._weight(index))
        if not weights.total:
            self._awake(epoch)  # raises
        draw = random.Random(f"{self._seed}/draw/{self._num_drawn}").random()
        self._num_drawn += 1
        return weights.at(draw)

    def _tree(self) -> Weights:
        """The weights of all tasks, made at the first draw and kept up from then on."""
        if self._weights is None:
            self._weights = Weights([self._weight(index) for index in range(len(self._tasks))])
            epoch = self._current_epoch()
            self._waking = [(back, index) for index, back in enumerate(self._back) if epoch < back < NEVER]
            heapq.heapify(self._waking)
        return self._weights

    def _weigh(self, index: int) -> None:
        """Keep the tree up with a task whose rate, or rest, is another."""
        if self._weights is not None:
            self._weights.set(index, self._weight(index))
            if self._current_epoch() < self._back[index] < NEVER:
                heapq.heappush(self._waking, (self._back[index], index))

    def _weight(self, index: int) -> float:
        """Of a task in a draw: largest where it is solved half of the time; 0 while it rests."""
        if self._back[index] > self._current_epoch():
            return 0.0
        # (passed + 1) / (graded + 2): a task without episodes is at one half, and none has the weight 0.
        chance = (self._passed[index] + 1) / (self._graded[index] + 2)
        return chance * (1 - chance) * self._shares.get(index, 1.0)

    def _draw_from_all(self) -> int:
        awake = sorted(self._awake(self._current_epoch()))
        chances = [(self._passed[index] + 1) / (self._graded[index] + 2) for index in awake]
        weights = [chance * (1 - chance) for chance in chances]
        (index,) = random.Random(f"{self._seed}/draw/{self._num_drawn}").choices(awake, weights)
        self._num_drawn += 1
        return index

    def _awake(self, epoch: int) -> set[int]:
        awake = {index for index, back in enumerate(self._back) if back <= epoch}
        if not awake:
            rates = [self._rate(index) for index in range(len(self._tasks))]
            never, always = sum(rate == 0 for rate in rates), sum(rate == 1 for rate in rates)
            low, high = self._config.low, self._config.high
            raise TrainingError(
                f"family {self._name!r}: all {len(rates)} tasks rest; {never} never passed, {always} always, and "
                f"{len(rates) - never - always} passed outside [{low:g}, {high:g}]. Widen rl.difficulty, take easier "
                "or harder tasks, or begin from another checkpoint"
            )
        return awake

    def find(self, family: str, task_id: str) -> Task:
        """Raises KeyError where there is no such task."""
        return self._tasks[self._place[family, task_id]]

    def state_dict(self) -> dict[str, Any]:
        return {
            "num_tasks": len(self._tasks),
            "epoch": self._epoch,
            "left": self._left[::-1],
            "version": self._version,
            "num_drawn": self._num_drawn,
            "passed": list(self._passed),
            "graded": list(self._graded),
            "back": list(self._back),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ValueError where the tasks are not those of the state."""
        if state["num_tasks"] != len(self._tasks):
            raise ValueError(
                f"the saved order is of {state['num_tasks']} tasks, here are {len(self._tasks)}; resume with the same"
            )
        self._epoch, self._num_drawn = int(state["epoch"]), int(state["num_drawn"])
        self._left = list(state["left"])[::-1]
        self._version, self._weights = int(state.get("version", 1)), None
        self._passed, self._graded = list(state["passed"]), list(state["graded"])
        self._back = list(state["back"])
