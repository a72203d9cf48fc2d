"""Evaluation while reinforcement learning runs, and the best checkpoint by it."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from ...agent.policy import Policy
from ...envs.runs.files import read_object, write_json
from ...envs.sandbox.background import on_thread_to_its_end
from ...envs.task import write_jsonl
from ...errors import ConfigError
from ...model.weights.checksums import add_sum, check_sum
from ..loops.metrics import read_metrics
from ..loops.reinforce import RL, Measure
from ..recipe.config import EvaluationConfig
from ..sampling.evaluation import pass_counts
from ..sampling.families import Family
from .stage_run import StageRun

logger = logging.getLogger(__name__)

BEST = "best"
BEST_INFO = "best.json"
OpenPolicy = Callable[[], AbstractAsyncContextManager[tuple[Policy, int]]]
"""Opens what samples under the weights of the moment: (policy, tokens of its context)."""


class Watcher:
    """Measures the same held-out tasks with the same seeds every so many steps, and keeps the best weights.

    ``FOLDER/evaluations.jsonl`` has a row each: "step", "pass@1" (mean over families), "families" {NAME: pass@1},
    "seconds". ``FOLDER/best`` is a link to the checkpoint with the highest pass@1, the earliest of equal ones, with
    ``best.json`` beside its weights. The link is replaced in one operation once the new checkpoint is whole, so that a
    crash at any moment leaves the better or the one before it. What a killed run had measured beyond its last save is
    measured again; the best checkpoint stays where it is better all the same.
    """

    def __init__(
        self,
        families: Sequence[Family],
        config: EvaluationConfig,
        folder: Path,
        *,
        open_policy: OpenPolicy,
        save: Callable[[Path], None],
        seed: int,
        concurrency: int,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Args:
            folder: of the stage.
            save: writes the weights of the moment into a folder.
            tell: called for every episode.
        """
        self._families, self._config, self._folder = families, config, folder
        self._open_policy, self._save, self._tell = open_policy, save, tell
        self._seed, self._concurrency = seed, concurrency
        self.best = best_of(folder)

    def is_due(self, step: int) -> bool:
        """Whether this step is one to measure after."""
        return step % self._config.every == 0

    async def measure(self, step: int) -> dict[str, float]:
        """Evaluate the weights of the moment; metrics "eval/...", "pass@1" as ``eval/passed/rate``."""
        started = time.monotonic()
        rates: dict[str, float] = {}
        async with self._open_policy() as (policy, max_context):
            for family in self._families:
                counts = await pass_counts(
                    family,
                    family.held_out[: self._config.num_tasks],
                    policy,
                    max_context,
                    samples=self._config.samples,
                    temperature=self._config.temperature,
                    seed=self._seed,
                    concurrency=self._concurrency,
                    tell=self._tell,
                )
                graded = [passed / total for passed, total in counts.values() if total]
                if graded:  # else the infrastructure failed every episode: that says nothing of the weights
                    rates[family.config.name] = sum(graded) / len(graded)
        seconds = time.monotonic() - started
        metrics = {f"eval/passed_{name}/rate": rate for name, rate in rates.items()} | {"eval/seconds/total": seconds}
        if len(rates) < len(self._families):
            missing = [one.config.name for one in self._families if one.config.name not in rates]
            logger.warning("step %d: no episode of %s could be graded; it cannot be the best", step, ", ".join(missing))
            return metrics
        mean = sum(rates.values()) / len(rates)
        row = {"step": step, "pass@1": mean, "families": rates}
        await on_thread_to_its_end(self._record, {**row, "seconds": round(seconds, 1)})  # while episodes go on
        if self.best is None or mean > self.best["pass@1"]:
            await on_thread_to_its_end(self._keep, row)
        assert self.best is not None
        return {**metrics, "eval/passed/rate": mean, "eval/best/rate": self.best["pass@1"]}

    def _record(self, row: Mapping[str, Any]) -> None:
        # After a resume steps come again; what was measured of them before is not what they are now.
        path = self._folder / "evaluations.jsonl"
        write_jsonl(path, [*(one for one in read_metrics(path) if one["step"] < row["step"]), row])

    def _keep(self, info: dict[str, Any]) -> None:
        name = f"{BEST}-{info['step']:06d}"
        # A name in use may be the link's target: it stays whole until the link points elsewhere.
        number = 1
        while (self._folder / name).exists():
            number += 1
            name = f"{BEST}-{info['step']:06d}-{number}"
        partial = self._folder / f".partial-{name}"
        shutil.rmtree(partial, ignore_errors=True)
        self._save(partial)
        write_json(partial / BEST_INFO, info, indent=None)
        add_sum(partial, BEST_INFO)
        partial.rename(self._folder / name)
        link = self._folder / f".partial-{BEST}"
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        os.replace(link, self._folder / BEST)
        self.best = info
        for old in (*self._folder.glob(f"{BEST}-*"), *self._folder.glob(f".partial-{BEST}-*")):
            if old.name != name:
                shutil.rmtree(old, ignore_errors=True)


async def watch(watcher: Watcher, run: StageRun, loop: RL) -> Measure:
    """Measure the starting weights now; the result measures those of later steps. Neither is on the stage's clock."""

    async def measure(step: int) -> Mapping[str, float]:
        if not watcher.is_due(step):
            return {}
        with run.off_the_clock():
            return await watcher.measure(step)

    if loop.num_steps == 0 and not loop.stopping:
        await measure(0)
    return measure


def best_of(folder: Path) -> dict[str, Any] | None:
    """The "step", "pass@1" and "families" of the best checkpoint of a stage; None where there is none.

    Raises:
        ConfigError, CheckpointError: it cannot be read, or has changed since it was written.
    """
    path = folder / BEST / BEST_INFO
    if not path.exists():
        return None
    info = read_object(path, "what chose the best checkpoint", f"remove {folder / BEST} to choose anew", ConfigError)
    check_sum(path.parent, BEST_INFO)
    return info


def evaluations_of(folder: Path) -> list[dict[str, Any]]:
    """The rows of a stage's ``evaluations.jsonl``, in the order of steps."""
    return read_metrics(folder / "evaluations.jsonl")
