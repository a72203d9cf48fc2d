"""Run a policy over tasks: any number of samples, bounded concurrency, resumable."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..agent.failures import Failures, lost_to
from ..agent.harness.open import Rollout
from ..agent.loop import Budget, rollout
from ..agent.seeds import SeededPolicy
from ..agent.sources import PolicyFor
from ..agent.speakers import Seat
from ..agent.trajectory import Trajectory
from ..envs.core import ToolEnv
from ..envs.runs.lock import RunLock
from ..envs.sandbox.loop_watch import LoopWatch
from ..envs.task import Task
from ..envs.tools.hooks import TIMEOUT_S, made_in_time
from ..errors import ConfigError, EnvironmentBug, TaskError
from ..model.chat.sampling import Sampling
from .control import Pool
from .store import VerdictStore
from .verdict import Verdict, labels_of

MakeEnv = Callable[[Task], ToolEnv]
"""An environment that takes this task; it may be driven again with any task of the same family."""

Progress = Callable[[Verdict, Trajectory | None], None]
"""Told of every verdict as it comes; of those already on record with None."""


async def evaluate(
    tasks: Sequence[Task],
    make_env: MakeEnv,
    policy_for: PolicyFor,
    *,
    samples: int,
    budget: Budget,
    sampling: Sampling,
    greedy: bool = False,
    concurrency: int = 8,
    out: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    save_trajectories: bool = False,
    retries: int = 1,
    progress: Progress | None = None,
    lock: RunLock | None = None,
    act: Rollout = rollout,
    seats: Mapping[str, Seat] = MappingProxyType({}),
    unit: bool = False,
    made_in_s: float = TIMEOUT_S,
) -> list[Verdict]:
    """Take samples of every task and say what each came to.

    Args:
        tasks: [N] with distinct ids.
        make_env: makes the environment of a task; called at most once a family for each worker.
        policy_for: makes the policy of an episode.
        samples: episodes of each task.
        budget: of each episode.
        sampling: with a seed, every sample and turn draws from a seed of its own, whatever else runs.
        greedy: draw at temperature 0; one sample a task.
        concurrency: most episodes at once.
        out: folder of verdicts.jsonl; one that exists is resumed, without repeating or losing a sample. Requests that
            are put there are heeded (``control``).
        settings: what a resumed folder must have been made with (suite, policy, sampling, ...).
        save_trajectories: write trajectories.jsonl too.
        retries: further attempts of a sample that the infrastructure failed.
        progress: told of every verdict; of a sample that is taken again on request, only of the first.
        lock: of ``out``, where the caller holds it already.
        act: runs an episode: our own loop, or another agent (``agent.harness.open``).
        seats: other speakers that environments ask by name.
        unit: map rewards from the environment's bounds to [0, 1].
        made_in_s: seconds that ``make_env`` may take.
    Returns:
        [N * samples] verdicts, tasks in the order given, samples by index.
    Raises:
        ConfigError: greedy with several samples, or ``out`` belongs to another run.
        TaskError: two tasks share an id.
    """
    _check(tasks, samples, greedy)
    if greedy:
        sampling = replace(sampling, temperature=0.0)
    jobs = [_Job(task=task, index=index) for task in tasks for index in range(samples)]
    order = [(job.task.id, job.index) for job in jobs]
    store = None
    if out is not None:
        store = VerdictStore(out, settings or {}, save_trajectories=save_trajectories, lock=lock)
    with store or nullcontext():
        verdicts = dict(store.verdicts) if store else {}
        if store:
            store.refuse_others(set(order))
        for verdict in verdicts.values():
            if progress:
                progress(verdict, None)
        name = str((settings or {}).get("policy", ""))
        runner = _Runner(make_env, policy_for, budget, sampling, retries, name, act, seats, unit, made_in_s)
        by_key = dict(zip(order, jobs, strict=True))

        async def record(verdict: Verdict, trajectory: Trajectory | None, prediction: Mapping[str, Any] | None) -> None:
            is_new = verdict.key not in verdicts
            verdicts[verdict.key] = verdict
            if store:
                await store.put(verdict, trajectory, prediction)
            if progress and is_new:
                progress(verdict, trajectory)

        pool = Pool(
            [job for key, job in by_key.items() if key not in verdicts],
            concurrency,
            folder=out,
            failed=lambda: [by_key[key] for key, one in verdicts.items() if one.is_infrastructure_failure],
            total=len(jobs),
            done=lambda: len(verdicts),
        )
        with LoopWatch():
            await pool.run(lambda pool: runner.work(pool, record))
        if store:
            store.finish(order)
    return [verdicts[key] for key in order]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    task: Task
    index: int


_Record = Callable[[Verdict, Trajectory | None, Mapping[str, Any] | None], Awaitable[None]]


def prediction_of(trajectory: Trajectory | None, env: ToolEnv | None, policy: str) -> dict[str, Any] | None:
    """What a sample came to, in the benchmark's own format: a patch as SWE-bench's harness takes it, else the final
    text as ``verigym grade`` takes it; None: there is none, the infrastructure failed."""
    if trajectory is None or trajectory.is_infrastructure_failure:
        return None
    if trajectory.family == "swe":
        patch = "" if env is None else env.patch or ""
        return {"instance_id": trajectory.task_id, "model_name_or_path": policy, "model_patch": patch}
    final = next((m.content for m in reversed(trajectory.messages) if m.role == "assistant" and not m.calls), "")
    # The ending tells a grader that a text was cut off.
    return {"task_id": trajectory.task_id, "prediction": final, "ending": trajectory.ending}


class _Runner:
    """Takes jobs from a pool, one at a time, with an environment of each family of its own."""

    def __init__(
        self,
        make_env: MakeEnv,
        policy_for: PolicyFor,
        budget: Budget,
        sampling: Sampling,
        retries: int,
        policy_name: str,
        act: Rollout,
        seats: Mapping[str, Seat],
        unit: bool,
        made_in_s: float,
    ) -> None:
        self._make_env, self._policy_for = make_env, policy_for
        self._budget, self._sampling, self._retries = budget, sampling, retries
        self._policy_name, self._act = policy_name, act
        self._failures = Failures()
        self._seats, self._unit, self._made_in_s = seats, unit, made_in_s

    async def work(self, pool: "Pool[_Job]", record: _Record) -> None:
        envs: dict[str, ToolEnv] = {}
        while (job := await pool.take()) is not None:
            for _ in range(1 + self._retries):
                verdict, trajectory = await self._sample(job, envs)
                if trajectory is None or not trajectory.is_infrastructure_failure:
                    break
                # What failed may have left its environment in disorder; the next attempt gets a new one.
                envs.pop(job.task.family, None)
            await record(verdict, trajectory, prediction_of(trajectory, envs.get(job.task.family), self._policy_name))
            pool.finished(job)

    async def _sample(self, job: _Job, envs: dict[str, ToolEnv]) -> tuple[Verdict, Trajectory | None]:
        task = job.task
        try:
            if task.family not in envs:
                envs[task.family] = await made_in_time(lambda: self._make_env(task), self._made_in_s)
            env = envs[task.family]
            policy = SeededPolicy(self._policy_for(env, task), task.id, job.index)
            trajectory = await self._act(
                env,
                policy,
                task,
                budget=self._budget,
                sampling=self._sampling,
                failures=self._failures,
                seats=self._seats,
                unit=self._unit,
            )
        except TaskError as error:
            verdict = Verdict(
                task_id=task.id,
                index=job.index,
                passed=None,
                score=None,
                ending="ungradable",
                detail=str(error),
                family=task.family,
                labels=labels_of(task),
            )
            return verdict, None
        except EnvironmentBug as bug:  # of its constructor, or its gold
            self._failures.met(bug)
            trajectory = lost_to(bug, task)
        return Verdict.of(trajectory, job.index, labels_of(task)), trajectory


def _check(tasks: Sequence[Task], samples: int, greedy: bool) -> None:
    if samples < 1:
        raise ConfigError(f"samples is {samples}; at least 1 is needed")
    if greedy and samples > 1:
        raise ConfigError(f"greedy draws are all the same; {samples} samples of them say no more than 1")
    twice = [task_id for task_id, count in Counter(task.id for task in tasks).items() if count > 1]
    if twice:
        raise TaskError(f"{len(twice)} task ids occur more than once, such as {twice[0]!r}; ids must be distinct")
