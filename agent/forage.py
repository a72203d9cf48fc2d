"""The forager: a policy let loose on tasks in sandboxes, and what it did kept as data, whatever came of it."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from ..envs.core import ToolEnv
from ..envs.runs.files import mend_lines
from ..envs.runs.lock import RunLock
from ..envs.task import Task, read_jsonl
from ..errors import ConfigError, TaskError
from ..model.chat.sampling import Sampling
from .failures import Failures
from .identity import Identity, identity_of
from .loop import Budget, rollout
from .sources import PolicyFor
from .speakers import Seat
from .trajectory import Trajectory

Kind = Literal["mutate-fix", "issue-fix"]
"""A bug that was put into a repository, or one that its history has: the kinds of arXiv:2510.02387."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foraged:
    """One episode as a row.

    Attributes:
        env: id of the environment.
        kind: ``Kind`` of a repository's task, else the task's family.
        trajectory: the episode, its tokens left out: another model has another tokenizer.
        identity: of its task, so that a recipe that holds the task out can tell.
    """

    env: str
    kind: str
    trajectory: Trajectory
    identity: Identity

    @property
    def id(self) -> str:
        """Of what was said and answered: the same for two episodes of a task that went the same way."""
        told = [self.trajectory.task_id, self.trajectory.to_json()["messages"]]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:20]

    @property
    def outcome(self) -> str:
        """ "passed", "failed", or how the infrastructure failed."""
        if self.trajectory.is_infrastructure_failure:
            return self.trajectory.ending
        return "passed" if self.trajectory.passed else "failed"

    def to_json(self) -> dict[str, Any]:
        row = {"id": self.id, "env": self.env, "kind": self.kind, "outcome": self.outcome}
        return {**row, "task": self.identity.to_json(), "trajectory": self.trajectory.to_json()}


def kind_of(task: Task) -> str:
    """What a task is an instance of."""
    if task.family != "swe":
        return task.family
    return "mutate-fix" if task.metadata.get("operator") else "issue-fix"


@dataclass(slots=True)
class Forager:
    """Runs episodes and writes each as it ends; run again on the same file it goes on where it stopped.

    ``OUT.done`` beside the file says which samples of which tasks were graded, those that were no news included.

    Attributes:
        env_id: of the environment, for the rows.
        policy, sandbox: what ``policy_for`` plays and where, in words: another one may not go on with its file.
        make_env: a fresh environment.
        policy_for: the policy of an episode.
        budget, sampling: of an episode; each sample draws with a seed of its own.
        workers: episodes at once.
        seats: other speakers that the environment asks by name.
        tell: (done, wanted), for progress.
    """

    env_id: str
    make_env: Callable[[], ToolEnv]
    policy_for: PolicyFor
    budget: Budget
    sampling: Sampling
    policy: str = ""
    sandbox: str = "auto"
    workers: int = 4
    seats: Mapping[str, Seat] = field(default_factory=dict)
    tell: Callable[[int, int], None] = lambda done, wanted: None
    counts: Counter[str] = field(default_factory=Counter)
    failures: Failures = field(default_factory=Failures)

    async def run(self, tasks: Sequence[Task], out: Path, *, samples: int = 1) -> Counter[str]:
        """Every task ``samples`` times. Kept is what is new; an infrastructure failure is counted and not kept.

        Returns:
            how many "passed", "failed", were "duplicate", or ended in an infrastructure failure.
        Raises:
            TaskError: ``out`` holds something else.
            ConfigError: another process writes to it, or it was made with other settings.
        """
        with RunLock(out, is_file=True):
            return await self._run(tasks, out, samples)

    async def _run(self, tasks: Sequence[Task], out: Path, samples: int) -> Counter[str]:
        ledger = out.with_name(f"{out.name}.done")
        if ledger.exists():  # so both are ours, and may have been killed in the middle of a row
            mend_lines(ledger)
            mend_lines(out)
        known = {row["id"] for row in _rows(out)} if out.exists() else set()
        graded = self._graded(ledger, known) if ledger.exists() else set()
        slots = asyncio.Semaphore(self.workers)
        wanted = [(task, number) for number in range(samples) for task in tasks]
        left = [(task, number) for task, number in wanted if (task.id, number, _digest(task)) not in graded]
        done = len(wanted) - len(left)
        with out.open("a", encoding="utf-8") as file, ledger.open("a", encoding="utf-8") as finished:

            async def one(task: Task, number: int) -> None:
                nonlocal done
                async with slots:
                    row = await self._episode(task, number)
                done += 1
                self.tell(done, len(wanted))
                if row.trajectory.is_infrastructure_failure:
                    self.counts[row.outcome] += 1
                    return  # it is tried again when the forager is
                if row.id in known:
                    self.counts["duplicate"] += 1
                else:
                    known.add(row.id)
                    self.counts[row.outcome] += 1
                    _write(file, row.to_json())
                done_with = {"task_id": task.id, "sample": number, "task": _digest(task), "row": row.id}
                _write(finished, {**done_with, "settings": self.settings})

            await asyncio.gather(*(one(task, number) for task, number in left))
        return self.counts

    @property
    def settings(self) -> dict[str, Any]:
        """What an episode depends on besides its task and its number, by the names of the command's options."""
        sampling = asdict(self.sampling)
        kept = {name: sampling[name] for name in ("max_tokens", "temperature", "top_p", "seed")}
        return {
            "ENV_ID": self.env_id,
            "--policy": self.policy,
            "--sandbox": self.sandbox,
            "--max-turns": self.budget.turns,
            "--timeout": self.budget.seconds,
            **{f"--{name.replace('_', '-')}": value for name, value in kept.items()},
            **{f"--model {name}": seat.spec for name, seat in self.seats.items()},
        }

    def _graded(self, ledger: Path, known: set[str]) -> set[tuple[str, int, str]]:
        """(task, sample, digest of the task) of the episodes that are done, and whose row is still there.

        Raises:
            ConfigError: they were played with other settings.
        """
        graded = set()
        for row in read_jsonl(ledger):
            before = row.get("settings")
            if not isinstance(before, dict):
                raise ConfigError(
                    f"{ledger} does not say with which settings its episodes were played; give another --out, or "
                    "remove it and the file beside it"
                )
            now = self.settings
            before = {"--sandbox": now["--sandbox"], **before}  # which ledgers did not always say
            changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
            if changed:
                told = ", ".join(f"{name} was {before.get(name)} and is {now.get(name)}" for name in changed)
                raise ConfigError(
                    f"{ledger.name.removesuffix('.done')} was made with other settings: {told}. Give another --out, or "
                    "the same settings"
                )
            if row.get("row") in known:
                graded.add((row["task_id"], row["sample"], row.get("task", "")))
        return graded

    async def _episode(self, task: Task, number: int) -> Foraged:
        env = self.make_env()
        seed = int.from_bytes(hashlib.sha256(f"{self.sampling.seed}/{task.id}/{number}".encode()).digest()[:4], "big")
        trajectory = await rollout(
            env,
            self.policy_for(env, task),
            task,
            budget=self.budget,
            sampling=replace(self.sampling, seed=seed),
            group_id=task.id,
            seats=self.seats,
            failures=self.failures,
        )
        return Foraged(
            env=self.env_id,
            kind=kind_of(task),
            trajectory=replace(trajectory, segments=(), tree=None),
            identity=identity_of(task),
        )


def _digest(task: Task) -> str:
    """Of a task's content: another task by the same id is another one."""
    return hashlib.sha256(json.dumps(task.to_json(), sort_keys=True, default=str).encode()).hexdigest()[:16]


def _rows(out: Path) -> Iterator[dict[str, Any]]:
    for row in read_jsonl(out):
        if not {"id", "env", "trajectory"} <= row.keys():
            raise TaskError(f"{out} holds rows that are no trajectories; give another --out")
        yield row


def _write(file: TextIO, row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row) + "\n")
    file.flush()
