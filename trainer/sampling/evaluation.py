"""Evaluating a family's held-out tasks during and after training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...agent.harness.open import Rollout
from ...agent.loop import rollout
from ...agent.policy import Policy, ScriptedPolicy, play
from ...agent.sources import PolicyFor
from ...agent.trajectory import Trajectory
from ...envs.scripts import script_of
from ...envs.task import Task
from ...evals.metrics import family_summary
from ...evals.run import evaluate
from ...evals.verdict import Verdict
from ...model.chat.sampling import Sampling
from ..recipe.stages import EvalConfig
from .families import Family


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Verdicts of one family after one stage.

    Attributes:
        sampled: at the recipe's temperature.
        greedy: at temperature 0; None where it was not asked for.
        episode: one sampled episode, to read; None where all were taken from an earlier sitting.
    """

    sampled: list[Verdict]
    greedy: list[Verdict] | None = None
    episode: Trajectory | None = None

    def summary(self) -> dict[str, Any]:
        """``family_summary`` of the samples, and "greedy": pass@1 of the greedy answers."""
        row = family_summary(self.sampled)
        if self.greedy is not None:
            greedy = family_summary(self.greedy)
            row |= {"greedy": greedy["pass@1"], "greedy_interval": greedy["interval"]}
        return row


async def evaluate_engine(
    family: Family,
    policy: Policy,
    max_context: int,
    *,
    settings: EvalConfig,
    seed: int,
    concurrency: int,
    out: Path,
    tell: Callable[[], None],
    tasks: Sequence[Task] | None = None,
) -> Evaluation:
    """Sample a token policy on the held-out tasks.

    Args:
        tasks: some of them; None: all.
        out: folder of the verdicts, resumed where it exists.
        tell: called for every verdict.
    """
    kept: list[Trajectory] = []
    sampled, greedy = [
        await _run(
            family,
            lambda env, task: policy,
            tasks=tasks,
            samples=1 if is_greedy else settings.samples,
            max_context=max_context,
            temperature=0.0 if is_greedy else settings.temperature,
            seed=seed,
            concurrency=concurrency,
            out=out / ("greedy" if is_greedy else "sampled"),
            tell=tell,
            kept=kept,
            act=family.act,
        )
        if not is_greedy or settings.greedy
        else None
        for is_greedy in (False, True)
    ]
    assert sampled is not None
    return Evaluation(sampled=sampled, greedy=greedy, episode=kept[0] if kept else None)


async def pass_counts(
    family: Family,
    tasks: Sequence[Task],
    policy: Policy,
    max_context: int,
    *,
    samples: int,
    temperature: float,
    seed: int,
    concurrency: int,
    out: Path | None = None,
    tell: Callable[[], None] = lambda: None,
) -> dict[str, tuple[int, int]]:
    """How often each task is solved: its id -> (episodes passed, episodes graded).

    Args:
        out: folder of the verdicts, resumed where it exists; None keeps none.
        tell: called for every verdict.
    """
    verdicts = await _run(
        family,
        lambda env, task: policy,
        tasks=tasks,
        samples=samples,
        max_context=max_context,
        temperature=temperature,
        seed=seed,
        concurrency=concurrency,
        out=out,
        tell=tell,
        kept=[],
        act=family.act,
    )
    counts: dict[str, tuple[int, int]] = {task.id: (0, 0) for task in tasks}
    for verdict in verdicts:
        if verdict.passed is not None:
            passed, graded = counts[verdict.task_id]
            counts[verdict.task_id] = passed + verdict.passed, graded + 1
    return counts


async def evaluate_script(
    family: Family, name: str, *, concurrency: int, out: Path, tell: Callable[[], None]
) -> Evaluation:
    """Play "gold", "empty" or "trivial" on the held-out tasks."""
    trivial = family.trivial
    policies: dict[str, PolicyFor] = {
        "gold": lambda env, task: ScriptedPolicy(play(script_of(env, "gold", task))),
        "empty": lambda env, task: ScriptedPolicy(play(script_of(env, "empty", task), on=True)),
    }
    if trivial is not None:
        policies["trivial"] = lambda env, task: ScriptedPolicy(trivial(task))
    verdicts = await _run(
        family,
        policies[name],
        samples=1,
        max_context=1 << 20,
        temperature=0.0,
        seed=0,
        concurrency=concurrency,
        out=out,
        tell=tell,
        kept=[],
    )
    return Evaluation(sampled=verdicts)


async def _run(
    family: Family,
    policy_for: PolicyFor,
    *,
    samples: int,
    max_context: int,
    temperature: float,
    seed: int,
    concurrency: int,
    out: Path | None,
    tell: Callable[[], None],
    kept: list[Trajectory],
    tasks: Sequence[Task] | None = None,
    act: Rollout = rollout,
) -> list[Verdict]:
    def progress(verdict: Verdict, trajectory: Trajectory | None) -> None:
        if trajectory is not None and not kept:
            kept.append(trajectory)
        tell()

    return await evaluate(
        family.held_out if tasks is None else tasks,
        lambda task: family.make_env(),
        policy_for,
        samples=samples,
        budget=family.plan(max_context).budget,
        sampling=Sampling(max_tokens=family.config.turn_tokens, temperature=temperature, seed=seed),
        greedy=temperature == 0.0,
        concurrency=concurrency,
        out=out,
        progress=progress,
        act=act,
        seats=family.seats,
        unit=family.config.reward == "unit",
        made_in_s=family.plan(max_context).made_in_s,
    )
