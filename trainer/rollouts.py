"""Collecting groups of episodes: many at once, failures of the infrastructure tried again."""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..agent.loop import Budget, rollout
from ..agent.policy import Policy
from ..agent.seeds import SeededPolicy
from ..agent.trajectory import Trajectory
from ..envs.background import all_or_first_error
from ..envs.core import ToolEnv
from ..envs.task import Task
from ..model.chat.sampling import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePlan:
    """How to run an episode of a task.

    Attributes:
        make_env: a fresh environment; called once for each episode.
        budget: turns, tokens and seconds of the episode.
        turn_tokens: most tokens sampled in one turn, the stop token included.
    """

    make_env: Callable[[], ToolEnv]
    budget: Budget
    turn_tokens: int = 256


PlanOf = Callable[[Task], EpisodePlan]
OnEpisode = Callable[[Trajectory], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Episodes of some tasks.

    Attributes:
        trajectories: group after group, in the order of the tasks; those the infrastructure failed to the last
            have reward None and stay out of every baseline.
        num_retries: attempts that were thrown away because the infrastructure failed.
    """

    trajectories: tuple[Trajectory, ...]
    num_retries: int

    def __add__(self, other: "Rollouts") -> "Rollouts":
        return Rollouts(
            trajectories=self.trajectories + other.trajectories, num_retries=self.num_retries + other.num_retries
        )

    @property
    def num_groups(self) -> int:
        return len({trajectory.group_id for trajectory in self.trajectories})

    @property
    def num_failed(self) -> int:
        return sum(trajectory.is_infrastructure_failure for trajectory in self.trajectories)


async def collect(
    tasks: Sequence[Task],
    plan_of: PlanOf,
    policy: Policy,
    *,
    sampling: Sampling,
    group_size: int,
    first: int = 0,
    concurrency: int = 64,
    retries: int = 2,
    on_episode: OnEpisode | None = None,
) -> Rollouts:
    """Run ``group_size`` episodes of each task.

    A task given twice makes two groups. Each episode has an environment of its own, which is closed at its end,
    also when this call is cancelled.

    Args:
        plan_of: how to run an episode of a task.
        sampling: of every turn, but for ``max_tokens``, which the plan says; with a seed, each turn of each attempt at
            each episode gets its own, derived from it.
        first: number of the first group; a step that collects twice numbers on.
        concurrency: episodes at once.
        retries: new attempts for an episode that the infrastructure failed.
        on_episode: called at the end of each episode, for progress.
    """
    slots = asyncio.Semaphore(concurrency)
    num_retries = 0

    async def episode(index: int, task: Task, member: int) -> Trajectory:
        nonlocal num_retries
        plan = plan_of(task)
        async with slots:
            for attempt in range(retries + 1):
                trajectory = await rollout(
                    plan.make_env(),
                    SeededPolicy(policy, index, member, attempt),
                    task,
                    budget=plan.budget,
                    sampling=replace(sampling, max_tokens=plan.turn_tokens),
                    group_id=f"{index}/{task.id}",
                )
                if not trajectory.is_infrastructure_failure or attempt == retries:
                    break
                num_retries += 1
        if on_episode is not None:
            on_episode(trajectory)
        return trajectory

    episodes = await all_or_first_error(
        [episode(index, task, member) for index, task in enumerate(tasks, first) for member in range(group_size)]
    )
    return Rollouts(trajectories=tuple(episodes), num_retries=num_retries)


class TaskStream:
    """Tasks in a new order each epoch, each exactly once in it. Its state is a cursor."""

    def __init__(self, tasks: Sequence[Task], *, seed: int = 0) -> None:
        if not tasks:
            raise ValueError("there is no task to train on; give at least one")
        self._tasks, self._seed = tuple(tasks), seed
        self.position = 0

    def take(self, count: int) -> list[Task]:
        """The next tasks; a new epoch begins where one ends."""
        taken = []
        for place in range(self.position, self.position + count):
            epoch, index = divmod(place, len(self._tasks))
            taken.append(self._tasks[self._order(epoch)[index]])
        self.position += count
        return taken

    def _order(self, epoch: int) -> list[int]:
        order = list(range(len(self._tasks)))
        random.Random(f"{self._seed}/{epoch}").shuffle(order)
        return order

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position, "num_tasks": len(self._tasks)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises ValueError where the tasks are not those of the state."""
        if state["num_tasks"] != len(self._tasks):
            raise ValueError(
                f"the saved cursor is of {state['num_tasks']} tasks, here are {len(self._tasks)}; resume with the same"
            )
        self.position = state["position"]
