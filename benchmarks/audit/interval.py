"""How often the interval that a report gives holds the true rate: simulated runs with known errors of their graders.

python -P benchmarks/audit/interval.py [--runs N]
"""

import argparse
import itertools
import time
from collections.abc import Iterator

import numpy as np

from verigym.evals.worth import corrected_rate, strata_of

SIZES, RATES, ERRORS = (60, 150, 500), (0.2, 0.5, 0.8), (0.0, 0.5, 1.0)
SHIFTS = {"none": (0.0, 0.0, 0.0), "hard tasks": (0.1, 0.1, -0.25), "easy tasks": (-0.1, 0.15, 0.15)}
"""How much more often than the rate each class is solved: sound, weak, narrow. Errors go with what is not level."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    args = parser.parse_args()
    began, found = time.process_time(), []
    print(f"| errors | they fall on | audited | {' | '.join(f'{size} tasks' for size in SIZES)} |")
    print("|---|---|---|" + "---|" * len(SIZES))
    for errors, where, audited in cells():
        columns = []
        for size in SIZES:
            settings = {"errors": errors, "shift": SHIFTS[where], "audited": audited, "runs": args.runs}
            shares = [covered(size, rate, **settings) for rate in RATES]
            found += shares
            columns.append(" ".join(f"{100 * share:.1f}" for share in shares))
        print(f"| {errors:g} | {where} | {audited:.0%} | {' | '.join(columns)} |", flush=True)
    inside = sum(0.92 <= share <= 0.98 for share in found)
    error = 100 * (0.95 * 0.05 / args.runs) ** 0.5
    print(
        f"each column: true rates {', '.join(map(str, RATES))}; {args.runs} runs a figure (standard error {error:.1f})"
    )
    print(
        f"{inside} of {len(found)} within 92 to 98 %, {min(found):.3f} to {max(found):.3f}, mean {np.mean(found):.3f}"
    )
    print(f"{time.process_time() - began:.0f} s of the processor")
    return 0


def cells() -> Iterator[tuple[float, str, float]]:
    for errors, where in itertools.product(ERRORS, SHIFTS):
        yield errors, where, 1.0
    yield 1.0, "none", 0.5


def covered(
    num_tasks: int,
    rate: float,
    *,
    errors: float,
    shift: tuple[float, float, float],
    runs: int = 250,
    audited: float = 1.0,
    seed: int = 0,
) -> float:
    """The share of simulated runs whose interval holds the true rate.

    Seven tasks in ten are sound, the others weak or narrow, with error rates of their own each; rates are measured by
    14 mutants and 3 choices a task.

    Args:
        errors: what the error rates are multiplied by.
        shift: how much more often than ``rate`` each class is solved, so that errors and ability go together.
        audited: the share of tasks that have a certificate.
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
        _, low, high = corrected_rate(passed, seen, refused, strata_of(list(named)), seed=run, resamples=300)
        hits += bool(low <= by_class @ shares <= high)
    return hits / runs


if __name__ == "__main__":
    raise SystemExit(main())
