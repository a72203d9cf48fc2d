"""Reinforcement learning: collect groups of episodes, take advantages, update, publish the weights."""

import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch

from ...agent.policy import Policy
from ...agent.seeds import derive_seed
from ...agent.trajectory import Trajectory
from ...envs.sandbox.background import on_thread_to_its_end
from ...envs.sandbox.loop_watch import LoopWatch
from ...envs.task import Task
from ...errors import ConfigError, TrainingError
from ...model.chat.sampling import Sampling
from ...model.lora import AnyDecoder
from ..batching.documents import Document
from ..batching.packs import pack
from ..learning.experience import Experience, annotate, experience_of
from ..learning.hindsight import Hindsight
from ..learning.kept import kept_tokens, marked
from ..learning.learner import Learner, Learning, Lesson
from ..learning.served import Columns, ServedTeachers, Unscored
from ..objective.objective import baselined_each
from ..recipe.algorithms import DrGRPOConfig, OPDConfig, PPOConfig, RLConfig
from ..recipe.config import OptimConfig
from ..recipe.per_family import ConfigOf
from ..sampling.rollouts import Collector, OnEpisode, PlanOf, Rollouts
from .collapse import CollapseWatch
from .loop import Loop, OnStep, StepResult
from .metrics import group_metrics, policy_metrics, rollout_metrics, update_metrics
from .passes import PassWatch
from .teacher_plays import teacher_plays
from .throughput import waiting_metrics
from .update import Keeps, Update, why_useless

logger = logging.getLogger(__name__)


class WeightStore(Protocol):
    """What samples the episodes, as far as the loop moves it."""

    @property
    def policy_version(self) -> int: ...

    @property
    def max_context(self) -> int: ...

    def update_weights(self, version: int) -> None:
        """The weights have changed; what is sampled from now on carries ``version``."""
        ...


class TaskSource(Protocol):
    """Where steps take their tasks from: ``rollouts.TaskStream``, or ``mixture.TaskMixture``."""

    def take(self, count: int) -> list[Task]: ...

    def find(self, family: str, task_id: str) -> Task: ...

    def observe(self, trajectories: Sequence[Trajectory]) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...


Measure = Callable[[int], Awaitable[Mapping[str, float]]]
"""Steps done -> metrics to add to that step's; awaited between an update and whatever is saved of it."""


class RL(Loop):
    """Synchronous reinforcement learning with any of ``algorithms``."""

    def __init__(
        self,
        decoder: AnyDecoder,
        generator: WeightStore,
        policy: Policy,
        plan_of: PlanOf,
        *,
        config: RLConfig,
        optim: OptimConfig,
        tasks: TaskSource | None = None,
        seed: int = 0,
        on_episode: OnEpisode | None = None,
        config_of: ConfigOf | None = None,
        learning: Learning | None = None,
        hindsight: Hindsight | None = None,
        served: ServedTeachers | None = None,
    ) -> None:
        """
        Args:
            generator: samples from ``decoder``'s weights; told of every new version of them.
            policy: answers conversations through the generator, with token ids and log-probabilities.
            plan_of: how to run an episode of a task: environment, budget, tokens of a turn.
            tasks: what ``run`` draws from; ``step`` takes its own.
            on_episode: called at the end of each episode, for progress.
            config_of: settings of each task, where families have some of their own; None: ``config`` for all.
            learning: does the updates; None: this process alone.
            hindsight: makes what teachers are shown; needed where the settings have a ``hindsight``.
            served: the teachers behind servers; the caller closes them.
        """
        if hindsight is None and getattr(config, "hindsight", None) is not None:
            raise ConfigError("the settings have a hindsight, and nothing makes it; pass hindsight=Hindsight(...)")
        self._hindsight, self._served = hindsight, served
        super().__init__(decoder, learning or Learner(decoder, Lesson(optim=optim, rl=config)), seed)
        self.config, self._config_of = config, config_of
        self.passes = PassWatch()
        self._generator, self._policy, self._plan_of, self._tasks = generator, policy, plan_of, tasks
        self._collector = Collector(
            plan_of,
            policy,
            group_size=config.group_size,
            concurrency=config.concurrency,
            retries=config.retries,
            deadline=config.group_seconds,
            quorum=config.quorum,
            on_episode=on_episode,
            on_group=None if served is None else served.begin,
            max_failures=config.max_failures,
        )
        self._num_useless = 0
        self.stopped_by = ""
        """Why the loop ended itself; "" where it did not."""
        self._collapse = CollapseWatch(config.collapse) if isinstance(config, OPDConfig) else None
        self._watch = LoopWatch()
        self.keeps: Keeps | None = None
        """Chooses the groups whose tokens are kept to look at; None keeps none."""

    async def run(self, num_steps: int, *, on_step: OnStep | None = None, measure: Measure | None = None) -> None:
        """Steps until ``num_steps`` are done in all, counting those before a resume, or ``stop`` is called.

        Args:
            on_step: told of every step.
            measure: asked for more metrics of every step, first.
        Raises:
            TrainingError: ``max_useless_steps`` steps in a row had nothing to learn from.
        """
        if self._tasks is None:
            raise ConfigError("run() draws tasks and has none; pass tasks=TaskStream([...]) or call step(tasks)")
        while self.num_steps < num_steps and not self.stopping:
            result = await self.step(self._tasks.take(self.config.num_tasks))
            self._tasks.observe(result.trajectories)
            await self._tell(result, on_step, measure)

    async def _tell(self, result: StepResult, on_step: OnStep | None, measure: Measure | None) -> None:
        if measure is not None:
            result = replace(result, metrics={**result.metrics, **await measure(result.step)})
        if on_step is not None:
            await on_thread_to_its_end(on_step, result)
        self._check_useful(result)

    async def step(self, tasks: Sequence[Task]) -> StepResult:
        """Collect ``group_size`` episodes of each task and learn from them."""
        started = time.perf_counter()
        rollouts, num_groups = await self.collect(tasks), len(tasks)
        for _ in range(getattr(self.config, "sampling_rounds", 1) - 1):
            missing = len(tasks) - self._num_informative(rollouts.trajectories)
            if missing <= 0 or self._tasks is None or self.stopping:
                break
            rollouts += await self.collect(self._tasks.take(missing), first=num_groups)
            num_groups += missing
        sampling = time.perf_counter() - started
        plays = await self._teacher_plays(rollouts.trajectories, tasks)
        began = time.perf_counter()
        update = await self._learned(rollouts.trajectories)
        metrics = {**rollout_metrics(rollouts), **self.passes.metrics(rollouts), **update.metrics, **plays}
        updating = time.perf_counter() - began
        metrics |= self._watch.take().metrics()
        metrics |= {"trainer/seconds/collect": sampling, "trainer/seconds/update": updating}
        metrics |= self.throughput.metrics(updating, metrics.get("trainer/tokens/count", 0.0))
        metrics |= waiting_metrics(metrics, sampling=sampling, sampler_idle=updating, trainer_idle=sampling)
        return update.result(self.num_steps, metrics, rollouts.trajectories)

    async def collect(self, tasks: Sequence[Task], *, first: int = 0) -> Rollouts:
        """Episodes of the tasks under the current weights.

        Args:
            first: number of the first group, where the step has earlier ones.
        Raises:
            ConfigError: an episode may be longer than a microbatch.
        """
        for task in tasks:
            self._check_length(task)
        with self._watch:
            return await self._collector.collect(tasks, self._sampling(self.num_steps), first=first)

    def _sampling(self, *place: int | str) -> Sampling:
        config = self.config
        return Sampling(
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            seed=derive_seed(self.seed, *place),
        )

    def _check_length(self, task: Task) -> None:
        longest = min(self._plan_of(task).budget.tokens, self._generator.max_context)
        if longest > self.config.microbatch_tokens:
            raise ConfigError(
                f"an episode of {task.id!r} may have {longest} tokens, a microbatch holds "
                f"{self.config.microbatch_tokens}; raise microbatch_tokens, or lower the episode's token budget"
            )

    async def _teacher_plays(self, trajectories: Sequence[Trajectory], tasks: Sequence[Task]) -> dict[str, float]:
        """What teachers come to that act themselves, where some are due before this update."""
        if self._hindsight is None:
            return {}
        return await teacher_plays(
            self.num_steps,
            self._hindsight,
            trajectories,
            self._configs(trajectories),
            tasks,
            self._plan_of,
            self._policy,
            config=self.config,
            sampling=self._sampling(self.num_steps, "teacher"),
        )

    async def _learned(self, trajectories: Sequence[Trajectory]) -> Update:
        """``learn`` beside the loop, with as many threads of torch as this one has: each thread has its own number."""
        num_threads = torch.get_num_threads()
        said = None if self._served is None else await self._served.said(trajectories)

        def work() -> Update:
            torch.set_num_threads(num_threads)
            return self.learn(trajectories, said)

        return await on_thread_to_its_end(work)

    def update(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """``learn``, and its metrics alone."""
        return self.learn(trajectories).metrics

    def learn(self, trajectories: Sequence[Trajectory], said: Sequence[Columns | Unscored] | None = None) -> Update:
        """Learn from episodes and publish the new weights. Where nothing can be learned, nothing changes.

        Args:
            said: what teachers behind servers say of each.
        Returns:
            what it did. Its metrics "trainer/mismatch_kl/mean" and "trainer/mismatch/max" compare the sampler's
            log-probabilities with the trainer's before the weights have moved.
        Raises:
            TrainingError: a reward is not finite.
            ValueError: a sampled token has no log-probability.
        """
        config = self.config
        experience = experience_of(trajectories, config, self._annotate, self._config_of, self._hindsight, said)
        critic_only = isinstance(config, PPOConfig) and self.num_steps < config.critic_warmup_steps
        chosen = self._chosen(trajectories)
        documents_of, owners = marked(experience.documents, chosen)
        updates = []
        for epoch in range(config.num_epochs):
            for members in self._minibatches(trajectories, experience, epoch):
                documents = [one for index in members for one in documents_of[index]]
                if not documents:
                    continue
                packs = pack(
                    documents,
                    max_tokens=config.microbatch_tokens,
                    temperature=config.temperature,
                    ways=self.learning.ways,
                    share=self.learning.share,
                )
                divisor = float(len(members) * config.length) if isinstance(config, DrGRPOConfig) else None
                updates.append(self.learning.step(packs, divisor=divisor, critic_only=critic_only))
                self.throughput.trained(packs)
        self.num_steps += 1
        if updates and not critic_only:
            self.sync()
            self._publish(self._generator.policy_version + 1)
        metrics = {
            **group_metrics(experience.groups),
            **policy_metrics(updates),
            **update_metrics(updates),
            **experience.metrics,
        }
        found = self.learning.take_kept() if owners and updates else []
        kept = kept_tokens(trajectories, documents_of, owners, found, chosen, self._configs(trajectories))
        return Update(metrics=metrics, advantages=experience.groups.values, kept=kept)

    def _chosen(self, trajectories: Sequence[Trajectory]) -> list[int]:
        """Places of the episodes whose tokens are kept."""
        if self.keeps is None:
            return []
        groups = {one.group_id for one in trajectories}
        wanted = self.keeps(self.num_steps + 1, sorted(groups))
        return [index for index, one in enumerate(trajectories) if one.group_id in wanted]

    def _configs(self, trajectories: Sequence[Trajectory]) -> list[RLConfig]:
        return [self._config_of(one.family, one.task_id) if self._config_of else self.config for one in trajectories]

    def _annotate(self, documents: Sequence[Document]) -> list[Document]:
        config = self.config
        own = config.correction.kind != "none" or isinstance(config, PPOConfig)
        # In the step, where distributions are compared; not here, where a server is asked.
        taught = isinstance(config, OPDConfig) and self._served is None
        self.throughput.passed(documents, times=own + bool(config.kl.coef) + taught)
        return annotate(documents, config, self.learning.columns, ways=self.learning.ways, share=self.learning.share)

    def _publish(self, version: int) -> None:
        """Let what samples go on with the decoder's weights."""
        self._generator.update_weights(version)

    def _num_informative(self, trajectories: Sequence[Trajectory]) -> int:
        """Groups whose rewards differ."""
        groups = baselined_each(self._configs(trajectories), trajectories, [one.reward for one in trajectories])
        return groups.num_groups - groups.num_uniform - groups.num_lone

    def _check_useful(self, result: StepResult) -> None:
        if self._collapse is not None and not self.stopped_by:
            self.stopped_by = self._collapse.observe(result.metrics)
            if self.stopped_by:
                logger.warning("%s", self.stopped_by)
                self.stop()
        if result.metrics["trainer/updates/count"]:
            self._num_useless = 0
            return
        self._num_useless += 1
        if self._num_useless >= self.config.max_useless_steps:
            raise TrainingError(f"{self._num_useless} steps in a row taught nothing: {why_useless(result)}")

    def _minibatches(self, trajectories: Sequence[Trajectory], experience: Experience, epoch: int) -> list[list[int]]:
        """Indices of trajectories in each update; a group is never split."""
        groups: dict[str, list[int]] = {}
        for index, trajectory in enumerate(trajectories):
            if experience.documents[index]:
                groups.setdefault(trajectory.group_id, []).append(index)
        order = list(groups.values())
        random.Random(derive_seed(self.seed, self.num_steps, epoch)).shuffle(order)
        count = self.config.num_minibatches
        return [[index for group in order[start::count] for index in group] for start in range(count)]

    def state_dict(self) -> dict[str, Any]:
        own: dict[str, Any] = {
            "policy_version": self._generator.policy_version,
            "cursor": self._cursor(),
            "num_useless": self._num_useless,
        }
        if self._collapse is not None:
            own["collapse"] = self._collapse.state_dict()
        return {**super().state_dict(), **own}

    def _cursor(self) -> Any:
        return None if self._tasks is None else self._tasks.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._tasks is not None and state["cursor"] is not None:
            self._tasks.load_state_dict(state["cursor"])
        super().load_state_dict(state)
        self._num_useless = int(state["num_useless"])
        if self._collapse is not None and "collapse" in state:
            self._collapse.load_state_dict(state["collapse"])
        self._publish(int(state["policy_version"]))
