"""Choose one of the k samples that an evaluation has recorded."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...agent.loop import Budget, rollout
from ...agent.sources import PolicyFor
from ...envs.datasets.files import read_rows
from ...envs.math.equivalence import EquivalenceChecker
from ...envs.sandbox.background import all_or_first_error
from ...envs.sandbox.types import SandboxBackend
from ...envs.task import Task
from ...errors import ConfigError
from ...model.chat.sampling import Sampling
from ...rewards.math.answers import extract_answer
from ...rewards.math.rules import decide
from ..store import write_lines
from ..verdict import Verdict
from .select import Candidate, choose, majority_vote
from .trials import Trial
from .write_tests import TestWritingEnv

logger = logging.getLogger(__name__)


def recorded_predictions(folder: Path) -> dict[str, dict[int, str]]:
    """Task id -> index -> text or patch, of a run's preds.jsonl.

    Raises:
        ConfigError: the run recorded none.
    """
    path = folder / "preds.jsonl"
    if not path.is_file():
        raise ConfigError(f"{path} is not there; choosing among samples needs a run that recorded them")
    found: dict[str, dict[int, str]] = defaultdict(dict)
    for row in read_rows(path):
        task_id = row.value.get("instance_id", row.value.get("task_id"))
        found[str(task_id)][int(row.value["index"])] = row.value.get("model_patch", row.value.get("prediction", ""))
    return dict(found)


def vote(predictions: Mapping[str, Mapping[int, str]], *, workers: int = 2) -> dict[str, int]:
    """Majority vote over the stated answers of each task: task id -> index. A task whose samples state no answer has
    its first sample."""
    checker = EquivalenceChecker(num_workers=workers)
    try:
        chosen = {}
        for task_id, samples in predictions.items():
            indices = sorted(samples)
            answers = [extract_answer(samples[index]) for index in indices]
            place = majority_vote(answers, lambda one, other: decide(one, other, checker).same)
            chosen[task_id] = indices[place or 0]
        return chosen
    finally:
        checker.close()


async def write_tests(
    tasks: Sequence[Task],
    policy_for: PolicyFor,
    *,
    samples: int,
    budget: Budget,
    sampling: Sampling,
    sandbox: str | SandboxBackend = "auto",
    workers: int = 2,
    out: Path | None = None,
) -> dict[str, list[str]]:
    """Have a policy write ``samples`` test files for each task; those that fail to hand one in give none.

    Args:
        out: folder of tests.jsonl, ``{"task_id", "index", "test"}`` each; those on record are not written again.
    """
    path = None if out is None else out / "tests.jsonl"
    rows = [row.value for row in read_rows(path)] if path is not None and path.exists() else []
    written = {(row["task_id"], row["index"]): row["test"] for row in rows}
    jobs = iter([(task, i) for task in tasks for i in range(samples) if (task.id, i) not in written])

    async def work() -> None:
        for task, index in jobs:
            env = TestWritingEnv(sandbox=sandbox)
            seed = None if sampling.seed is None else sampling.seed + index
            settings = replace(sampling, seed=seed)
            done = await rollout(env, policy_for(env, task), task, budget=budget, sampling=settings)
            if done.is_infrastructure_failure:
                logger.warning("%s, test %d: %s (%s)", task.id, index, done.ending, done.detail)
                continue  # not on record: the same command tries it again
            written[task.id, index] = env.test
            if path is not None:
                told = [{"task_id": key[0], "index": key[1], "test": test} for key, test in written.items()]
                write_lines(path, told)

    await all_or_first_error([work() for _ in range(workers)])
    return {task.id: [test for i in range(samples) if (test := written.get((task.id, i)))] for task in tasks}


async def select_patches(
    backend: SandboxBackend,
    tasks: Sequence[Task],
    predictions: Mapping[str, Mapping[int, str]],
    verdicts: Sequence[Verdict],
    tests: Mapping[str, Sequence[str]],
    *,
    workers: int = 2,
    timeout_s: float = 600.0,
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Choose a patch for each task by existing and generated tests (``select``). Verdicts are read for their tokens
    alone.

    Returns:
        (task id -> index, rows for people: what each task's candidates passed).
    """
    tokens = {verdict.key: verdict.num_tokens for verdict in verdicts}
    chosen, told = {}, []
    for task in tasks:
        samples = predictions.get(task.id, {})
        indices = sorted(samples)
        if not indices:
            continue
        candidates = [Candidate(patch=samples[i], num_tokens=tokens.get((task.id, i))) for i in indices]
        trial = Trial(backend, task, timeout_s=timeout_s, workers=workers)
        trials = await trial.run(candidates, tests.get(task.id, ()))
        chosen[task.id] = indices[choose(trials.candidates)]
        told.append(
            {
                "task_id": task.id,
                "chosen": chosen[task.id],
                "num_existing": trials.num_existing,
                "num_generated": trials.num_generated,
                "num_passed": {str(i): len(one.passed) for i, one in zip(indices, trials.candidates)},
            }
        )
        await asyncio.sleep(0)
    return chosen, told
