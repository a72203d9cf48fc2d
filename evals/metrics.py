"""Numbers of an evaluation: pass@k, intervals, paired differences. Pure functions."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..agent.trajectory import INFRASTRUCTURE
from .verdict import Verdict

RESAMPLES = 10_000
Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """How much the second of two runs on the same tasks is better.

    Attributes:
        mean: second minus first, mean over tasks; in [-1, 1].
        low, high: 95 % bootstrap interval over tasks.
        num_tasks: tasks that both runs have graded.
        num_better, num_worse: tasks on which the second run passes more often, and less often.
        p_value: exact McNemar (of samples, the sign test over tasks that differ), two-sided; 1 where none differs.
    """

    mean: float
    low: float
    high: float
    num_tasks: int
    num_better: int
    num_worse: int
    p_value: float


def pass_at_k(num_samples: int, num_passed: int, k: int) -> float:
    """Chance that at least one of k samples passes, unbiased, from n samples of which c passed.

    1 - C(n - c, k) / C(n, k).

    Raises:
        ValueError: k is not in 1..n, or c not in 0..n; the estimate does not exist.
    Source: Chen et al. 2021, arXiv:2107.03374, section 2.1.
    """
    if not 1 <= k <= num_samples or not 0 <= num_passed <= num_samples:
        raise ValueError(
            f"pass@{k} of {num_passed} passes in {num_samples} samples does not exist; 1 <= k <= n, c <= n"
        )
    return 1.0 - math.comb(num_samples - num_passed, k) / math.comb(num_samples, k)


def bootstrap_interval(per_task: Sequence[float], *, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % percentile interval of the mean over tasks, tasks drawn with replacement.

    Args:
        per_task: [N] one number a task.
        seed: of the draws; the same seed gives the same interval.
        resamples: bootstrap samples.
    Raises:
        ValueError: there is no task.
    """
    values = np.asarray(per_task, dtype=np.float64)
    if values.size == 0:
        raise ValueError("an interval needs at least one task")
    rng = np.random.default_rng(seed)
    # Chunks bound the memory: [resamples, N] of a large suite would take gigabytes.
    chunk = max(1, 4_000_000 // values.size)
    means = [
        values[rng.integers(values.size, size=(min(chunk, resamples - start), values.size))].mean(axis=1)
        for start in range(0, resamples, chunk)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def wilson_interval(num_passed: float, num_tasks: int) -> tuple[float, float]:
    """95 % Wilson score interval of a proportion; unlike the bootstrap it is not a point where all tasks agree.

    Raises:
        ValueError: there is no task.
    Source: E. B. Wilson, JASA 22 (1927).
    """
    if num_tasks < 1:
        raise ValueError("an interval needs at least one task")
    share = num_passed / num_tasks
    spread = Z95 * math.sqrt(share * (1 - share) / num_tasks + Z95**2 / (4 * num_tasks**2))
    scale = 1 + Z95**2 / num_tasks
    center = share + Z95**2 / (2 * num_tasks)
    low = 0.0 if num_passed == 0 else max(0.0, (center - spread) / scale)
    high = 1.0 if num_passed == num_tasks else min(1.0, (center + spread) / scale)
    return low, high


def interval_of(per_task: Sequence[float]) -> tuple[float, float]:
    """The interval that reports state: the bootstrap's; Wilson's where every task passed or every task failed, of
    which resampling can say nothing."""
    if all(value == 1.0 for value in per_task) or all(value == 0.0 for value in per_task):
        return wilson_interval(sum(per_task), len(per_task))
    return bootstrap_interval(per_task)


def paired_difference(
    first: Iterable[Verdict], second: Iterable[Verdict], *, seed: int = 0, resamples: int = RESAMPLES
) -> PairedDifference:
    """Second minus first, by task, over the tasks that both runs have graded.

    Raises:
        ValueError: the runs share no graded task.
    """
    before, after = task_pass_rates(first), task_pass_rates(second)
    shared = [task_id for task_id in before if task_id in after]
    if not shared:
        raise ValueError("the two runs share no graded task; compare runs of one suite")
    differences = [after[task_id] - before[task_id] for task_id in shared]
    low, high = bootstrap_interval(differences, seed=seed, resamples=resamples)
    better, worse = sum(value > 0 for value in differences), sum(value < 0 for value in differences)
    return PairedDifference(
        mean=float(np.mean(differences)),
        low=low,
        high=high,
        num_tasks=len(shared),
        num_better=better,
        num_worse=worse,
        p_value=mcnemar_p(better, worse),
    )


def mcnemar_p(num_better: int, num_worse: int) -> float:
    """Two-sided exact p-value that tasks that changed would do so in either direction alike.

    Source: Q. McNemar, Psychometrika 12 (1947); the exact form is a binomial test of the discordant pairs.
    """
    changed = num_better + num_worse
    tail = sum(math.comb(changed, i) for i in range(min(num_better, num_worse) + 1))
    return min(1.0, 2 * tail / 2**changed)


def task_pass_rates(verdicts: Iterable[Verdict]) -> dict[str, float]:
    """Share of a task's graded samples that passed; tasks without a graded sample are left out."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for verdict in verdicts:
        if verdict.passed is not None:
            counts[verdict.task_id][0] += verdict.passed
            counts[verdict.task_id][1] += 1
    return {task_id: passed / graded for task_id, (passed, graded) in counts.items()}


def family_summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What a report says of one family's (or one suite's) verdicts.

    Failures of the infrastructure and predictions that cannot be graded count in no denominator; both are stated.

    Returns:
        "pass@1" (mean over tasks of the share of samples that passed; None where nothing was graded), "interval"
        (see ``interval_of``), "pass@k" for powers of two k that every graded task has samples for, "n" (graded tasks),
        "num_tasks", "num_predictions", "num_ungradable", "num_infrastructure_failures", "num_untrusted" (patches whose
        tests all passed while nothing speaks for some that decide, whatever they were worth), "format_error_rate" (of
        turns), "mean_turns", "endings" (ending -> count), "num_tokens" (sampled, where the policy tells),
        "mean_seconds" (of an episode), "mean_score" (of the graded samples; None where there is none), "parts" (name
        -> its mean over those that have it) and "bugs" (hook of an environment -> samples that it failed).
    """
    rates = task_pass_rates(verdicts)
    num_failures = sum(verdict.ending in INFRASTRUCTURE for verdict in verdicts)
    num_turns = sum(verdict.num_turns for verdict in verdicts)
    num_format_errors = sum(verdict.num_format_errors for verdict in verdicts)
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    parts: dict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        for name, value in verdict.breakdown.items():
            parts[name].append(value)
    return {
        "pass@1": float(np.mean(list(rates.values()))) if rates else None,
        "interval": list(interval_of(list(rates.values()))) if rates else None,
        **_higher_pass_at_k(verdicts),
        "n": len(rates),
        "num_tasks": len({verdict.task_id for verdict in verdicts}),
        "num_predictions": len(verdicts),
        "num_ungradable": sum(verdict.passed is None for verdict in verdicts) - num_failures,
        "num_infrastructure_failures": num_failures,
        "num_untrusted": sum(verdict.is_untrusted for verdict in verdicts),
        "format_error_rate": num_format_errors / num_turns if num_turns else 0.0,
        "mean_turns": num_turns / len(verdicts) if verdicts else 0.0,
        "endings": dict(sorted(Counter(verdict.ending for verdict in verdicts).items())),
        "num_tokens": sum(verdict.num_tokens or 0 for verdict in verdicts),
        "mean_seconds": sum(verdict.seconds for verdict in verdicts) / len(verdicts) if verdicts else 0.0,
        "mean_score": float(np.mean(scores)) if scores else None,
        "parts": {name: float(np.mean(values)) for name, values in sorted(parts.items())},
        "bugs": dict(sorted(Counter(verdict.failed_in for verdict in verdicts if verdict.failed_in).items())),
    }


def breakdown(verdicts: Sequence[Verdict]) -> dict[str, dict[str, dict[str, Any]]]:
    """Label (repo, difficulty, ...) -> its value -> pass@1, interval and graded tasks; labels of one value are left
    out."""
    groups: dict[str, dict[str, list[Verdict]]] = defaultdict(lambda: defaultdict(list))
    for verdict in verdicts:
        for label, value in verdict.labels.items():
            groups[label][value].append(verdict)
    return {
        label: {
            value: {key: summary[key] for key in ("pass@1", "interval", "n")}
            for value, summary in ((value, family_summary(of)) for value, of in sorted(values.items()))
        }
        for label, values in sorted(groups.items())
        if len(values) > 1
    }


def _higher_pass_at_k(verdicts: Iterable[Verdict]) -> dict[str, float]:
    outcomes: dict[str, list[bool]] = defaultdict(list)
    for verdict in verdicts:
        if verdict.passed is not None:
            outcomes[verdict.task_id].append(verdict.passed)
    fewest = min(map(len, outcomes.values()), default=0)
    higher, k = {}, 2
    while k <= fewest:
        higher[f"pass@{k}"] = float(np.mean([pass_at_k(len(o), sum(o), k) for o in outcomes.values()]))
        k *= 2
    return higher
