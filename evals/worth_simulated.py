"""Simulated runs with known errors of their graders: how often the interval of ``worth`` holds the true rate."""

import numpy as np

from .worth import corrected_rate, strata_of


def covered(
    num_tasks: int,
    rate: float,
    *,
    errors: float,
    shift: tuple[float, float, float],
    runs: int = 250,
    audited: float = 1.0,
    seed: int = 0,
    resamples: int = 300,
) -> float:
    """The share of simulated runs whose interval holds the true rate.

    Seven tasks in ten are sound, the others weak or narrow, with error rates of their own each; rates are measured by
    14 mutants and 3 choices a task.

    Args:
        errors: what the error rates are multiplied by.
        shift: how much more often than ``rate`` each class is solved, so that errors and ability go together.
        audited: the share of tasks that have a certificate.
        resamples: of an interval; a report takes more, and its intervals hold the truth a little more often.
    """
    rng, hits = np.random.default_rng(seed), 0
    shares = np.array([0.7, 0.15, 0.15])
    by_class = np.clip(rate + np.array(shift), 0.02, 0.98)
    for run in range(runs):
        kinds = rng.choice(3, size=num_tasks, p=shares)
        accepts = np.where(kinds == 1, rng.beta(2, 4, num_tasks), rng.beta(1, 30, num_tasks)) * errors
        refuses = np.where(kinds == 2, rng.beta(2, 3, num_tasks), 0.0) * errors
        right = rng.random(num_tasks) < by_class[kinds]
        passed = np.where(right, rng.random(num_tasks) >= refuses, rng.random(num_tasks) < accepts).astype(float)
        seen = rng.binomial(14, accepts) / 14
        refused = rng.binomial(3, refuses) / 3
        named = np.where(refused > 0, "narrow", np.where(seen * 14 / 18 >= 0.2, "weak", "sound"))
        out = rng.random(num_tasks) > audited
        seen[out], refused[out], named[out] = np.nan, np.nan, ""
        _, low, high = corrected_rate(passed, seen, refused, strata_of(list(named)), seed=run, resamples=resamples)
        hits += bool(low <= by_class @ shares <= high)
    return hits / runs
