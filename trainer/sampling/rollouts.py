"""Collecting groups of episodes: many at once, failures of the infrastructure tried again."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...agent.failures import Failures, lost_to
from ...agent.harness.open import Rollout
from ...agent.loop import Budget, rollout
from ...agent.passes import with_flags
from ...agent.policy import Policy
from ...agent.rewarded import failed_comparison, with_added
from ...agent.seeds import SeededPolicy
from ...agent.speakers import Seat, seated
from ...agent.trajectory import Trajectory
from ...envs.core import ToolEnv
from ...envs.sandbox.background import all_or_first_error
from ...envs.task import Task
from ...envs.tools.hooks import TIMEOUT_S, made_in_time
from ...errors import EnvironmentBug, GradingError, PolicyError, SandboxError
from ...model.chat.sampling import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodePlan:
    """How to run an episode of a task.

    Attributes:
        make_env: a fresh environment; called once for each episode.
        budget: turns, tokens and seconds of the episode.
        turn_tokens: most tokens sampled in one turn, the stop token included.
        group_size: episodes of its group; None: the collector's.
        temperature: of sampling; None: that of the step.
        act: runs it: our own loop, or another agent.
        seats: other speakers that the environment asks by name.
        unit: map rewards from the environment's bounds to [0, 1].
        compares: whether the environment compares the episodes of a group once they have ended.
        made_in_s: seconds that ``make_env`` may take.
    """

    make_env: Callable[[], ToolEnv]
    budget: Budget
    turn_tokens: int = 256
    group_size: int | None = None
    temperature: float | None = None
    act: Rollout = rollout
    seats: Mapping[str, Seat] = field(default_factory=dict)
    unit: bool = False
    compares: bool = False
    made_in_s: float = TIMEOUT_S


PlanOf = Callable[[Task], EpisodePlan]
OnEpisode = Callable[[Trajectory], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """Episodes of some tasks.

    Attributes:
        trajectories: group after group, in the order of the tasks; those the infrastructure failed to the last
            have reward None and stay out of every baseline.
        num_retries: attempts that were thrown away because the infrastructure failed.
        num_cut: episodes that were cancelled at the deadline of their group.
        num_late: groups left out because too few of their episodes had ended by then.
        bugs: hook of an environment -> attempts, thrown away or not, that it failed.
    """

    trajectories: tuple[Trajectory, ...] = ()
    num_retries: int = 0
    num_cut: int = 0
    num_late: int = 0
    bugs: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: "Rollouts") -> "Rollouts":
        return Rollouts(
            trajectories=self.trajectories + other.trajectories,
            num_retries=self.num_retries + other.num_retries,
            num_cut=self.num_cut + other.num_cut,
            num_late=self.num_late + other.num_late,
            bugs=Counter(self.bugs) + Counter(other.bugs),
        )

    @property
    def num_failed(self) -> int:
        return sum(one.is_infrastructure_failure for one in self.trajectories if not one.speaker)


class Collector:
    """Runs groups of episodes, each with an environment of its own, which is closed at its end, also where a group is
    cancelled."""

    def __init__(
        self,
        plan_of: PlanOf,
        policy: Policy,
        *,
        group_size: int,
        concurrency: int = 64,
        retries: int = 2,
        deadline: float | None = None,
        quorum: int | None = None,
        on_episode: OnEpisode | None = None,
        on_group: Callable[[Sequence[Trajectory]], None] | None = None,
        max_failures: float | None = None,
    ) -> None:
        """
        Args:
            plan_of: how to run an episode of a task.
            concurrency: episodes at once, of all groups.
            retries: new attempts for an episode that the infrastructure failed.
            deadline: seconds after the start of a group's first episode at which those still running are cancelled;
                None waits for all.
            quorum: episodes that must have ended by then (of a smaller group, all), else the group is left out;
                None: all.
            on_episode: called at the end of each episode, for progress.
            on_group: called with the episodes of each group that has ended in time.
            max_failures: share of the last episodes that may be lost to a bug of their environment; None: all.
        """
        self._failures = Failures(max_failures)
        self._plan_of, self._policy, self._group_size, self._retries = plan_of, policy, group_size, retries
        self._deadline, self._quorum = deadline, quorum
        self._concurrency, self._on_episode, self._on_group = concurrency, on_episode, on_group
        self._slots: tuple[asyncio.AbstractEventLoop, asyncio.Semaphore] | None = None

    async def group(self, number: int, task: Task, sampling: Sampling) -> Rollouts:
        """As many episodes of a task as its plan says.

        Args:
            number: of the group in its run, or in its step; part of its id and of its seeds.
            sampling: of every turn, but for ``max_tokens``, which the plan says; with a seed, each turn of each attempt
                at each episode gets its own, derived from it.
        Raises:
            EnvironmentBug: more than ``max_failures`` of the episodes met one.
        """
        loop = asyncio.get_running_loop()
        if self._slots is None or self._slots[0] is not loop:
            self._slots = loop, asyncio.Semaphore(self._concurrency)
        slots, begun = self._slots[1], asyncio.Event()
        size = self._plan_of(task).group_size or self._group_size
        episodes = [
            asyncio.create_task(self._episode(number, member, task, sampling, slots, begun)) for member in range(size)
        ]
        try:
            if self._deadline is None:
                await asyncio.gather(*episodes)
            else:
                await begun.wait()
                await asyncio.wait(episodes, timeout=self._deadline, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            running = [one for one in episodes if not one.done()]
            for one in running:
                # One that was cancelled with us is closing its sandbox: a second cancellation would stop it at that.
                if not one.cancelling():
                    one.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        found = [one.result() for one in episodes if one not in running]
        lost = Rollouts(
            num_retries=sum(len(attempts) - 1 for attempts in found),
            num_cut=len(running),
            bugs=Counter(one.failed_in for attempts in found for one in attempts if one.failed_in),
        )
        if len(found) < (size if self._quorum is None else min(self._quorum, size)):
            return replace(lost, num_late=1)
        trajectories = [attempts[-1] for attempts in found]
        if self._plan_of(task).compares:
            trajectories, bugs = await self._compared(task, trajectories, sampling)
            lost = replace(lost, bugs=Counter(lost.bugs) + bugs)
        others = [companion for one in trajectories for companion in one.companions]
        own = [replace(one, companions=()) if one.companions else one for one in trajectories]
        if self._on_group is not None:
            self._on_group((*own, *others))
        return replace(lost, trajectories=(*own, *others))

    async def _compared(
        self, task: Task, trajectories: list[Trajectory], sampling: Sampling
    ) -> tuple[list[Trajectory], Counter[str]]:
        """(the episodes of a group with what comparing them adds to their rewards, hook -> attempts at it that failed).
        Where it fails to the last attempt, none of them has a reward: some with it and some without would be no
        baseline."""
        plan, whole = self._plan_of(task), [one for one in trajectories if one.reward is not None]
        bugs: Counter[str] = Counter()
        for attempt in range(self._retries + 1):
            try:
                env = await made_in_time(plan.make_env, plan.made_in_s)
                env.seat(seated(plan.seats, SeededPolicy(self._policy, task.id, attempt, "compare"), sampling))
                added = await env.acompare(task, whole, unit=plan.unit)
            except (EnvironmentBug, PolicyError, SandboxError, GradingError) as error:
                problem = error
                if isinstance(error, EnvironmentBug):
                    self._failures.met(error)
                    bugs[error.hook] += 1
                continue
            low, high = env.reward_bounds
            rows = iter(added)
            factor = 1.0 / (high - low) if plan.unit else 1.0
            return [
                one if one.reward is None else with_added(one, next(rows), factor, env.evidence) for one in trajectories
            ], bugs
        failed = [failed_comparison(one, problem) for one in trajectories]
        for one in failed:
            self._failures.ended(one)
        return failed, bugs

    async def _episode(
        self,
        number: int,
        member: int,
        task: Task,
        sampling: Sampling,
        slots: asyncio.Semaphore,
        begun: asyncio.Event,
    ) -> list[Trajectory]:
        """The attempts at an episode: those that the infrastructure failed, and the one that stands."""
        plan = self._plan_of(task)
        sampling = replace(
            sampling,
            max_tokens=plan.turn_tokens,
            temperature=sampling.temperature if plan.temperature is None else plan.temperature,
        )
        async with slots:
            begun.set()
            attempts: list[Trajectory] = []
            for attempt in range(self._retries + 1):
                policy = SeededPolicy(self._policy, number, member, attempt)
                trajectory = await self._attempt(plan, policy, task, sampling, f"{number}/{task.id}")
                attempts.append(trajectory)
                if not trajectory.is_infrastructure_failure:
                    break
        if self._on_episode is not None:
            self._on_episode(trajectory)
        self._failures.ended(trajectory)
        return [*attempts[:-1], with_flags(trajectory, task)]

    async def _attempt(
        self, plan: EpisodePlan, policy: Policy, task: Task, sampling: Sampling, group_id: str
    ) -> Trajectory:
        try:
            env = await made_in_time(plan.make_env, plan.made_in_s)
        except EnvironmentBug as bug:
            self._failures.met(bug)
            return lost_to(bug, task, group_id)
        return await plan.act(
            env,
            policy,
            task,
            budget=plan.budget,
            sampling=sampling,
            group_id=group_id,
            failures=self._failures,
            seats=plan.seats,
            unit=plan.unit,
        )

    async def collect(self, tasks: Sequence[Task], sampling: Sampling, *, first: int = 0) -> Rollouts:
        """A group for each task, all at once. A task given twice makes two groups.

        Args:
            first: number of the first group; a step that collects twice numbers on.
        """
        groups = await all_or_first_error(
            [self.group(number, task, sampling) for number, task in enumerate(tasks, first)]
        )
        return sum(groups, Rollouts())


def is_in_epoch(weight: float, seed: int, index: int, epoch: int) -> bool:
    """Whether a task takes part in an epoch: in a share ``weight`` of them, evenly, each from its own beginning."""
    begin = random.Random(f"{seed}/share/{index}").random()
    return int((epoch + 1) * weight + begin) > int(epoch * weight + begin)


def shuffled(count: int, seed: int, epoch: int) -> list[int]:
    """The order of ``count`` tasks in an epoch."""
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


class TaskStream:
    """Tasks in a new order each epoch, each exactly once in it, those of a weight below 1 in so large a share of the
    epochs. Its state is a cursor; the order is made once an epoch."""

    def __init__(self, tasks: Sequence[Task], *, seed: int = 0, weights: Mapping[str, float] | None = None) -> None:
        """
        Args:
            weights: task id -> share of the epochs that it takes part in; 1 for those left out.
        """
        if not tasks:
            raise ValueError("there is no task to train on; give at least one")
        self._tasks, self._seed = tuple(tasks), seed
        self._weights = {n: weights[task.id] for n, task in enumerate(tasks) if weights and task.id in weights}
        self._by_id = {(task.family, task.id): task for task in tasks}
        self.position = 0
        self._epoch, self._start = -1, 0
        self._order: list[int] = []

    def take(self, count: int) -> list[Task]:
        """The next tasks; a new epoch begins where one ends."""
        taken = [self._at(place) for place in range(self.position, self.position + count)]
        self.position += count
        return taken

    def _at(self, place: int) -> Task:
        if not self._weights:
            epoch, start = place // len(self._tasks), place - place % len(self._tasks)
        else:
            epoch, start = (max(0, self._epoch), self._start) if self._start <= place else (0, 0)
            while place >= start + (length := len(self._members(epoch))):
                epoch, start = epoch + 1, start + length
        if (epoch, start) != (self._epoch, self._start):
            members = self._members(epoch)
            order = shuffled(len(self._tasks), self._seed, epoch)
            self._order = [index for index in order if index in members]
            self._epoch, self._start = epoch, start
        return self._tasks[self._order[place - start]]

    def _members(self, epoch: int) -> frozenset[int] | range:
        """Who takes part in an epoch."""
        if not self._weights:
            return range(len(self._tasks))
        away = {n for n, weight in self._weights.items() if not is_in_epoch(weight, self._seed, n, epoch)}
        return frozenset(range(len(self._tasks))) - away

    def find(self, family: str, task_id: str) -> Task:
        """Raises KeyError where there is no such task."""
        return self._by_id[family, task_id]

    def observe(self, trajectories: Sequence[Trajectory]) -> None:
        """Told of the episodes of the tasks it gave; their order does not depend on them."""

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position, "num_tasks": len(self._tasks)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raises ValueError where the tasks are not those of the state."""
        if state["num_tasks"] != len(self._tasks):
            raise ValueError(
                f"the saved cursor is of {state['num_tasks']} tasks, here are {len(self._tasks)}; resume with the same"
            )
        self.position = state["position"]
