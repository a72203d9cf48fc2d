"""Asynchronous reinforcement learning: episodes are sampled ahead, under weights up to ``max_lag`` steps old."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from torch import nn

from ...agent.policy import Policy
from ...envs.sandbox.background import on_thread_to_its_end
from ...envs.task import Task
from ...errors import TrainingError
from ...model.lora import AnyDecoder, copy_weights
from ..learning.hindsight import Hindsight
from ..learning.learner import Learning
from ..learning.served import ServedTeachers
from ..recipe.algorithms import AsyncConfig, RLConfig
from ..recipe.config import OptimConfig
from ..recipe.per_family import ConfigOf
from ..sampling.rollouts import OnEpisode, PlanOf, Rollouts
from .groups import Group
from .loop import OnStep, StepResult
from .metrics import rollout_metrics
from .reinforce import RL, Measure, TaskSource
from .throughput import IdleClock, waiting_metrics


class WeightsInFlight(Protocol):
    """What samples the episodes: an engine with a decoder of its own, whose weights may change while it works."""

    @property
    def policy_version(self) -> int: ...

    @property
    def max_context(self) -> int: ...

    def update_weights(
        self,
        version: int,
        load: Callable[[Any], None] | None = None,
        *,
        on_weight_update: Literal["recompute", "keep", "abort"] | None = None,
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moment:
    """What the event loop changes and a checkpoint holds, at the end of a step."""

    num_started: int
    counts: dict[str, int]
    open_tasks: list[Task]
    ready: list[Group]
    cursor: Any


class AsyncRL(RL):
    """Samples and trains at the same time, on one event loop; an update runs in a thread beside it.

    Groups are atomic, and each is accounted for once: trained, or dropped as "stale" (older than ``max_lag`` steps when
    its turn came), "late" (too few episodes by the group's deadline) or, with dynamic sampling, "uniform".
    """

    def __init__(
        self,
        decoder: AnyDecoder,
        generator: WeightsInFlight,
        policy: Policy,
        plan_of: PlanOf,
        *,
        config: RLConfig,
        asynchronous: AsyncConfig,
        optim: OptimConfig,
        tasks: TaskSource,
        seed: int = 0,
        on_episode: OnEpisode | None = None,
        config_of: ConfigOf | None = None,
        learning: Learning | None = None,
        hindsight: Hindsight | None = None,
        served: ServedTeachers | None = None,
    ) -> None:
        """
        Args:
            generator: of a decoder of its own, a copy of ``decoder``: an update changes that while episodes run.
            asynchronous: how far sampling runs ahead, and what becomes of what is in flight at an update.
        """
        super().__init__(
            decoder,
            generator,
            policy,
            plan_of,
            config=config,
            optim=optim,
            tasks=tasks,
            seed=seed,
            on_episode=on_episode,
            config_of=config_of,
            learning=learning,
            hindsight=hindsight,
            served=served,
        )
        self._source, self._engine, self.asynchronous = tasks, generator, asynchronous
        self.counts: Counter[str] = Counter()
        self._num_started = 0
        self._num_open = 0  # started, and neither trained nor dropped
        self._ready: list[Group] = []
        self._running: dict[asyncio.Task[None], tuple[int, Task]] = {}
        self._again: list[Task] = []  # of groups that a resume must run anew
        self._changed = asyncio.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: BaseException | None = None
        self._moment: _Moment | None = None
        self._num_dropped_in_a_row = 0
        self._idle = IdleClock()

    async def run(self, num_steps: int, *, on_step: OnStep | None = None, measure: Measure | None = None) -> None:
        """Steps until ``num_steps`` are done in all, or ``stop`` is called; episodes still running are then ended.

        Sampling goes on while ``measure`` is awaited, as it does during an update.

        Raises:
            TrainingError: as ``RL.run``.
        """
        self._changed, self._loop = asyncio.Condition(), asyncio.get_running_loop()
        with self._watch:
            await self._steps(num_steps, on_step, measure)

    async def _steps(self, num_steps: int, on_step: OnStep | None, measure: Measure | None) -> None:
        producer = asyncio.create_task(self._produce(num_steps))
        try:
            while self.num_steps < num_steps and not self.stopping:
                result = await self._next_step()
                if result is None:
                    break
                self._num_dropped_in_a_row = 0
                await self._tell(result, on_step, measure)
                async with self._changed:
                    self._changed.notify_all()
        finally:
            for one in (producer, *self._running):
                if not one.cancelling():
                    one.cancel()
            # What is cut off here is sampled anew after a resume.
            self._again = [task for _, task in sorted(self._running.values(), key=lambda pair: pair[0])] + self._again
            await asyncio.gather(producer, *self._running, return_exceptions=True)
            self._running.clear()
            self._loop = None
            self._num_open = len(self._ready)

    def stop(self) -> None:
        """As ``RL.stop``; a step that waits for episodes ends at once."""
        super().stop()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._notify()))

    async def _tell(self, result: StepResult, on_step: OnStep | None, measure: Measure | None) -> None:
        """As ``RL._tell``; what is written of a step is written on a thread, while episodes go on."""
        if measure is not None:
            result = replace(result, metrics={**result.metrics, **await measure(result.step)})
        if on_step is not None:
            self._moment = self._now()
            try:
                await on_thread_to_its_end(on_step, result)
            finally:
                self._moment = None
        self._check_useful(result)

    async def _next_step(self) -> StepResult | None:
        started = time.perf_counter()
        groups = await self._take()
        if groups is None:
            return None
        version = self._engine.policy_version
        lags = [version - found for group in groups if (found := group.version) is not None]
        rollouts = sum((group.rollouts for group in groups), Rollouts())
        idle = self._idle.taken()
        metrics = {**rollout_metrics(rollouts), **self.passes.metrics(rollouts)}
        metrics |= await self._teacher_plays(rollouts.trajectories, [group.task for group in groups])
        began = time.perf_counter()
        update = await self._learned(rollouts.trajectories)
        metrics |= update.metrics
        ended = time.perf_counter()
        self._num_open -= len(groups)
        self.counts["trained"] += len(groups)
        metrics |= {f"trainer/groups_{name}/total": float(count) for name, count in self.counts.items()}
        metrics |= {
            **self._watch.take().metrics(),
            "trainer/lag/mean": sum(lags) / max(1, len(lags)),
            "trainer/lag/max": float(max(lags, default=0)),
            "trainer/seconds/update": ended - began,
            **self.throughput.metrics(ended - began, metrics.get("trainer/tokens/count", 0.0)),
            **waiting_metrics(
                metrics,
                sampling=max(0.0, ended - started - idle),
                sampler_idle=idle,
                trainer_idle=began - started,
            ),
        }
        return update.result(self.num_steps, metrics, rollouts.trajectories)

    async def _take(self) -> list[Group] | None:
        """The next ``num_tasks`` groups; None where ``stop`` came first."""
        async with self._changed:
            while True:
                if self._failure is not None:
                    raise self._failure
                self._drop()
                count = self.config.num_tasks
                if self.asynchronous.order == "started":
                    self._ready.sort(key=lambda group: group.number)
                if len(self._ready) >= count and self._is_turn_of(self._ready[count - 1]):
                    taken, self._ready = self._ready[:count], self._ready[count:]
                    return taken
                if self.stopping:
                    return None
                await self._changed.wait()

    def _is_turn_of(self, group: Group) -> bool:
        if self.asynchronous.order == "ended":
            return True
        return all(number > group.number for number, _ in self._running.values())

    def _drop(self) -> None:
        kept = []
        for group in self._ready:
            reason = self._reason_to_drop(group)
            if reason is None:
                kept.append(group)
            else:
                self.counts[f"dropped_{reason}"] += 1
                if self._served is not None:
                    self._served.forget(group.rollouts.trajectories)
                self._num_open -= 1
                self._num_dropped_in_a_row += 1
        if len(kept) < len(self._ready):
            self._ready = kept
            self._changed.notify_all()
        rounds = getattr(self.config, "sampling_rounds", 1)  # dynamic sampling expects that many groups for one
        most = self.config.max_useless_steps * self.config.num_tasks * rounds
        if self._num_dropped_in_a_row >= most:
            dropped = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()) if "dropped" in name)
            raise TrainingError(
                f"no step after {self._num_dropped_in_a_row} dropped groups, as many as max_useless_steps = "
                f"{self.config.max_useless_steps} steps may take ({dropped} in all). Where they are uniform take "
                "easier or harder tasks, where late raise group_seconds or lower quorum, where stale raise max_lag"
            )

    def _reason_to_drop(self, group: Group) -> str | None:
        if group.rollouts.num_late:
            return "late"
        if group.version is not None and self._engine.policy_version - group.version > self.asynchronous.max_lag:
            return "stale"
        dynamic = getattr(self.config, "sampling_rounds", 1) > 1
        return "uniform" if dynamic and not self._num_informative(group.rollouts.trajectories) else None

    async def _produce(self, num_steps: int) -> None:
        """Start groups, never more than can be trained on within ``max_lag`` steps."""
        try:
            while True:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._may_start(num_steps))
                task = self._again.pop(0) if self._again else self._source.take(1)[0]
                self._check_length(task)
                number = self._num_started
                self._num_started += 1
                self._num_open += 1
                self._idle.note(False)
                runner = asyncio.create_task(self._run_group(number, task))
                self._running[runner] = (number, task)
        except Exception as error:  # told to whoever waits for groups
            self._failure = error
            await self._notify()

    def _may_start(self, num_steps: int) -> bool:
        ahead = min(self.asynchronous.max_lag + 1, num_steps - self.num_steps)
        if self._num_open >= ahead * self.config.num_tasks:
            return False
        return len(self._running) * self.config.group_size < self.config.concurrency + self.config.group_size

    async def _run_group(self, number: int, task: Task) -> None:
        current = asyncio.current_task()
        assert current is not None
        try:
            found = await self._collector.group(number, task, self._sampling(number))
            self._source.observe(found.trajectories)
            self._ready.append(Group(number=number, task=task, rollouts=found))
            self.counts["sampled"] += 1
        except asyncio.CancelledError as error:
            if current.cancelling():
                raise
            self._failure = TrainingError(f"group {number} of task {task.id!r} was cancelled from within")
            self._failure.__cause__ = error
        except Exception as error:
            self._failure = error
        finally:
            if not current.cancelling():
                del self._running[current]
                self._idle.note(not self._running)
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _publish(self, version: int) -> None:
        def load(sampled: nn.Module) -> None:
            copy_weights(self.decoder, sampled)

        self._engine.update_weights(version, load, on_weight_update=self.asynchronous.on_weight_update)

    def state_dict(self) -> dict[str, Any]:
        """Groups that have ended are saved with their episodes; those still running are run anew after a resume. May
        be called on another thread while ``on_step`` is told of a step."""
        moment = self._moment or self._now()
        own = {
            "num_started": moment.num_started,
            "counts": moment.counts,
            "again": [[task.family, task.id] for task in moment.open_tasks],
            "ready": [group.to_json() for group in moment.ready],
        }
        return {**super().state_dict(), **own}

    def _now(self) -> _Moment:
        running = sorted(self._running.values(), key=lambda pair: pair[0])
        return _Moment(
            num_started=self._num_started,
            counts=dict(self.counts),
            open_tasks=[task for _, task in running] + self._again,
            ready=list(self._ready),
            cursor=super()._cursor(),
        )

    def _cursor(self) -> Any:
        return super()._cursor() if self._moment is None else self._moment.cursor

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._num_started = int(state["num_started"])
        self.counts = Counter(state["counts"])
        self._again = [self._source.find(*names) for names in state["again"]]
        self._ready = [Group.from_json(row, self._source.find) for row in state["ready"]]
        self._num_open = len(self._ready)
