"""The forager: a policy let loose on tasks in sandboxes, and what it did kept as data, whatever came of it."""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TextIO

from ..envs.core import ToolEnv
from ..envs.run_lock import RunLock
from ..envs.task import Task, read_jsonl
from ..errors import TaskError
from ..model.chat.sampling import Sampling
from .identity import Identity, identity_of
from .loop import Budget, rollout
from .sources import PolicyFor
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
        make_env: a fresh environment.
        policy_for: the policy of an episode.
        budget, sampling: of an episode; each sample draws with a seed of its own.
        workers: episodes at once.
        tell: (done, wanted), for progress.
    """

    env_id: str
    make_env: Callable[[], ToolEnv]
    policy_for: PolicyFor
    budget: Budget
    sampling: Sampling
    workers: int = 4
    tell: Callable[[int, int], None] = lambda done, wanted: None
    counts: Counter[str] = field(default_factory=Counter)

    async def run(self, tasks: Sequence[Task], out: Path, *, samples: int = 1) -> Counter[str]:
        """Every task ``samples`` times. Kept is what is new; an infrastructure failure is counted and not kept.

        Returns:
            how many "passed", "failed", were "duplicate", or ended in an infrastructure failure.
        Raises:
            TaskError: ``out`` holds something else.
            ConfigError: another process writes to it.
        """
        with RunLock(out, is_file=True):
            return await self._run(tasks, out, samples)

    async def _run(self, tasks: Sequence[Task], out: Path, samples: int) -> Counter[str]:
        ledger = out.with_name(f"{out.name}.done")
        graded = set()
        if ledger.exists():  # so both are ours, and may have been killed in the middle of a row
            _mend(ledger)
            _mend(out)
            graded = {(row["task_id"], row["sample"]) for row in read_jsonl(ledger)}
        known = {row["id"] for row in _rows(out)} if out.exists() else set()
        slots = asyncio.Semaphore(self.workers)
        wanted = [(task, number) for number in range(samples) for task in tasks]
        left = [(task, number) for task, number in wanted if (task.id, number) not in graded]
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
                _write(finished, {"task_id": task.id, "sample": number})

            await asyncio.gather(*(one(task, number) for task, number in left))
        return self.counts

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
        )
        return Foraged(
            env=self.env_id,
            kind=kind_of(task),
            trajectory=replace(trajectory, segments=()),
            identity=identity_of(task),
        )


def _rows(out: Path) -> Iterator[dict[str, Any]]:
    for row in read_jsonl(out):
        if not {"id", "env", "trajectory"} <= row.keys():
            raise TaskError(f"{out} holds rows that are no trajectories; give another --out")
        yield row


def _mend(path: Path) -> None:
    """Cut off the beginning of a row at the end of a file, where it is there; whole rows stay."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        last = content[content.rfind(b"\n") + 1 :]
        try:
            json.loads(last or b"{}")
        except ValueError:
            file.truncate(len(content) - len(last))
        else:
            file.write(b"\n" if last else b"")


def _write(file: TextIO, row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row) + "\n")
    file.flush()
