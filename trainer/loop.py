"""The training loops: ``SFT`` imitates demonstrations, ``GRPO`` learns from the rewards of its own episodes."""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..agent.policy import Policy
from ..agent.seeds import derive_seed
from ..agent.trajectory import TRUNCATED, Trajectory
from ..envs.task import Task
from ..errors import ConfigError
from ..model.chat.sampling import Sampling
from ..model.decoder import Decoder
from .advantages import group_advantages
from .batching import DocumentStream, demonstrations_of, experience_of, pack
from .config import GRPOConfig, OptimConfig, SFTConfig
from .losses import PolicyLoss, sft_loss
from .metrics import group_metrics, policy_metrics, rollout_metrics, update_metrics
from .optim import Optimizer
from .rollouts import OnEpisode, PlanOf, Rollouts, collect
from .step import TrainStep, mean_loss

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

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What one step did.

    Attributes:
        step: steps done, this one included.
        metrics: keys "room/quantity/stat".
        trajectories: the episodes of the step; none in supervised training.
    """

    step: int
    metrics: Mapping[str, float]
    trajectories: tuple[Trajectory, ...] = ()


OnStep = Callable[[StepResult], None]


class _Loop:
    """What both loops share: the model, its optimizer, a step counter and a flag to stop at."""

    def __init__(self, decoder: Decoder, optim: OptimConfig, seed: int) -> None:
        self.decoder, self.seed = decoder, seed
        self.optimizer = Optimizer(decoder, optim)
        self.num_steps = 0
        self.stopping = False

    def stop(self) -> None:
        """Ask ``run`` to return after the step in progress. Safe from a signal handler."""
        self.stopping = True

    def state_dict(self) -> dict[str, Any]:
        """Everything but the weights; a checkpoint holds those once, in Hugging Face's format."""
        return {"num_steps": self.num_steps, "optimizer": self.optimizer.state_dict(), "rng": torch.get_rng_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken. The weights must have been loaded into the decoder.

        Raises:
            ValueError: the state is of another model, or of other data.
        """
        self.num_steps = int(state["num_steps"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])


class SFT(_Loop):
    """Supervised training on the assistant tokens of demonstrations, up to a plateau of the held-out loss."""

    def __init__(
        self,
        decoder: Decoder,
        demonstrations: Sequence[Trajectory],
        *,
        config: SFTConfig,
        optim: OptimConfig,
        held_out: Sequence[Trajectory] = (),
        seed: int = 0,
    ) -> None:
        """
        Args:
            held_out: demonstrations of other tasks; needed where ``config.patience`` is above 0.
        Raises:
            ConfigError: settings that need held-out demonstrations, without any.
            ValueError: nothing to train on, or a demonstration longer than a microbatch.
        """
        super().__init__(decoder, optim, seed)
        self.config = config
        documents = demonstrations_of(demonstrations, observation_weight=config.observation_weight)
        self._stream = DocumentStream(documents, batch_tokens=config.batch_tokens, seed=seed)
        pack(documents, max_tokens=config.microbatch_tokens)  # refuses an overlong demonstration before the first step
        self._held_out = pack(demonstrations_of(held_out), max_tokens=config.microbatch_tokens)
        if config.patience and not self._held_out:
            raise ConfigError("patience needs held-out demonstrations to measure; give some, or set patience = 0")
        self._step = TrainStep(decoder, self.optimizer, sft_loss)
        self.best_loss = float("inf")
        self._num_worse = 0

    @property
    def plateaued(self) -> bool:
        """Whether ``patience`` measures in a row brought no better held-out loss."""
        return bool(self.config.patience) and self._num_worse >= self.config.patience

    @property
    def finished(self) -> bool:
        """Whether steps, epochs or the plateau end the training."""
        config = self.config
        out_of_steps = config.max_steps is not None and self.num_steps >= config.max_steps
        out_of_data = config.epochs is not None and self._stream.epochs_done >= config.epochs
        return out_of_steps or out_of_data or self.plateaued

    def step(self) -> StepResult:
        """One update, and, every ``eval_every`` of them, a measure of the held-out loss."""
        started = time.perf_counter()
        documents = self._stream.next_batch()
        found = self._step(pack(documents, max_tokens=self.config.microbatch_tokens))
        self.num_steps += 1
        metrics = {
            "trainer/loss/mean": found["loss"],
            "trainer/entropy/mean": found["entropy"],
            **update_metrics([found]),
            "trainer/epochs/done": self._stream.epochs_done,
        }
        if self._held_out and self.num_steps % self.config.eval_every == 0:
            metrics["trainer/held_out_loss/mean"] = self._measure()
        metrics["trainer/seconds/step"] = time.perf_counter() - started
        return StepResult(step=self.num_steps, metrics=metrics)

    def run(self, *, on_step: OnStep | None = None, seconds: float | None = None) -> None:
        """Steps until the training is ``finished``, ``stop`` is called, or the wall clock is up.

        Args:
            seconds: wall clock from now; None: no limit.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while not (self.finished or self.stopping or (deadline is not None and time.monotonic() >= deadline)):
            result = self.step()
            if on_step is not None:
                on_step(result)

    def _measure(self) -> float:
        loss = mean_loss(self.decoder, self._held_out, sft_loss)
        better = loss < self.best_loss - self.config.min_delta
        self._num_worse = 0 if better else self._num_worse + 1
        self.best_loss = loss if better else self.best_loss
        return loss

    def state_dict(self) -> dict[str, Any]:
        own = {"cursor": self._stream.state_dict(), "best_loss": self.best_loss, "num_worse": self._num_worse}
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._stream.load_state_dict(state["cursor"])
        super().load_state_dict(state)
        self.best_loss, self._num_worse = float(state["best_loss"]), int(state["num_worse"])


class GRPO(_Loop):
    """Synchronous GRPO: collect groups of episodes, take advantages, update, publish the weights."""

    def __init__(
        self,
        decoder: Decoder,
        generator: WeightStore,
        policy: Policy,
        plan_of: PlanOf,
        *,
        config: GRPOConfig,
        optim: OptimConfig,
        tasks: TaskSource | None = None,
        seed: int = 0,
        on_episode: OnEpisode | None = None,
    ) -> None:
        """
        Args:
            generator: samples from ``decoder``'s weights; told of every new version of them.
            policy: answers conversations through the generator, with token ids and log-probabilities.
            plan_of: how to run an episode of a task: environment, budget, tokens of a turn.
            tasks: what ``run`` draws from; ``step`` takes its own.
            on_episode: called at the end of each episode, for progress.
        """
        super().__init__(decoder, optim, seed)
        self.config = config
        self._generator, self._policy, self._plan_of, self._on_episode = generator, policy, plan_of, on_episode
        self._tasks = tasks
        loss = PolicyLoss(clip_low=config.clip_low, clip_high=config.clip_high, entropy_coef=config.entropy_coef)
        self._step = TrainStep(decoder, self.optimizer, loss)

    async def run(self, num_steps: int, *, on_step: OnStep | None = None) -> None:
        """Steps until ``num_steps`` are done in all, counting those before a resume, or ``stop`` is called."""
        if self._tasks is None:
            raise ConfigError("run() draws tasks and has none; pass tasks=TaskStream([...]) or call step(tasks)")
        while self.num_steps < num_steps and not self.stopping:
            result = await self.step(self._tasks.take(self.config.num_tasks))
            if on_step is not None:
                on_step(result)

    async def step(self, tasks: Sequence[Task]) -> StepResult:
        """Collect ``group_size`` episodes of each task and learn from them."""
        started = time.perf_counter()
        rollouts = await self.collect(tasks)
        collected = time.perf_counter()
        metrics = {**rollout_metrics(rollouts), **self.update(rollouts.trajectories)}
        metrics["trainer/seconds/collect"] = collected - started
        metrics["trainer/seconds/update"] = time.perf_counter() - collected
        return StepResult(step=self.num_steps, metrics=metrics, trajectories=rollouts.trajectories)

    async def collect(self, tasks: Sequence[Task]) -> Rollouts:
        """Episodes of the tasks under the current weights.

        Raises:
            ConfigError: an episode may be longer than a microbatch.
        """
        config = self.config
        for task in tasks:
            longest = min(self._plan_of(task).budget.tokens, self._generator.max_context)
            if longest > config.microbatch_tokens:
                raise ConfigError(
                    f"an episode of {task.id!r} may have {longest} tokens, a microbatch holds "
                    f"{config.microbatch_tokens}; raise microbatch_tokens, or lower the episode's token budget"
                )
        sampling = Sampling(
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            seed=derive_seed(self.seed, self.num_steps),
        )
        return await collect(
            tasks,
            self._plan_of,
            self._policy,
            sampling=sampling,
            group_size=config.group_size,
            concurrency=config.concurrency,
            retries=config.retries,
            on_episode=self._on_episode,
        )

    def update(self, trajectories: Sequence[Trajectory]) -> dict[str, float]:
        """Learn from episodes and publish the new weights. Where no group differs in reward, nothing changes.

        Returns:
            metrics. "trainer/mismatch_kl/mean" and "trainer/mismatch/max" compare the sampler's log-probabilities
            with the trainer's in the first update, before the weights have moved.
        Raises:
            ValueError: a sampled token has no log-probability.
        """
        groups = group_advantages(trajectories, scale=self.config.scale, drop_uniform=self.config.drop_uniform_groups)
        advantages = list(groups.values)
        if self.config.overlong == "mask":
            for index, trajectory in enumerate(trajectories):
                if trajectory.ending in TRUNCATED:
                    advantages[index] = None
        updates = []
        for epoch in range(self.config.num_epochs):
            for members in self._minibatches(trajectories, advantages, epoch):
                documents = experience_of(
                    [trajectories[index] for index in members],
                    [advantages[index] for index in members],
                    aggregation=self.config.aggregation,
                )
                if not documents:
                    continue
                packs = pack(documents, max_tokens=self.config.microbatch_tokens, temperature=self.config.temperature)
                updates.append(self._step(packs))
        self.num_steps += 1
        if updates:
            self._generator.update_weights(self._generator.policy_version + 1)
        return {**group_metrics(groups), **policy_metrics(updates), **update_metrics(updates)}

    def _minibatches(
        self, trajectories: Sequence[Trajectory], advantages: Sequence[float | None], epoch: int
    ) -> list[list[int]]:
        """Indices of trajectories in each update; a group is never split."""
        groups: dict[str, list[int]] = {}
        for index, trajectory in enumerate(trajectories):
            if advantages[index] is not None:
                groups.setdefault(trajectory.group_id, []).append(index)
        order = list(groups.values())
        random.Random(derive_seed(self.seed, self.num_steps, epoch)).shuffle(order)
        count = self.config.num_minibatches
        return [[index for group in order[start::count] for index in group] for start in range(count)]

    def state_dict(self) -> dict[str, Any]:
        own = {
            "policy_version": self._generator.policy_version,
            "cursor": None if self._tasks is None else self._tasks.state_dict(),
        }
        return {**super().state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._tasks is not None and state["cursor"] is not None:
            self._tasks.load_state_dict(state["cursor"])
        super().load_state_dict(state)
        self._generator.update_weights(int(state["policy_version"]))
