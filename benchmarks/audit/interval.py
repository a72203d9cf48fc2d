"""How often the interval that a report gives holds the true rate: simulated runs with known errors of their graders.

python -P benchmarks/audit/interval.py [--runs N]
"""

import argparse
import itertools
import time
from collections.abc import Iterator

import numpy as np

from verigym.evals.worth_simulated import covered

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


if __name__ == "__main__":
    raise SystemExit(main())
