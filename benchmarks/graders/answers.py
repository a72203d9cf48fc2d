"""Answers a second: verigym's grader of mathematics beside plain math-verify, same rows, same cores, one after the
other in turns.

    python benchmarks/graders/answers.py ROWS.jsonl [--rounds N] [--json FILE]

A row has ``prediction`` and ``gold`` (and ``label``, for the agreement of both). math-verify is used as its README
says, in one process for each worker, with its own time limits; it extracts from the whole response.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from verigym.envs.math.equivalence import EquivalenceChecker
from verigym.rewards.math.grade import grade_math

Row = dict[str, str]


def plain(row: Row) -> bool:
    """math-verify alone."""
    from math_verify import parse, verify

    gold = row["gold"] if "$" in row["gold"] else f"${row['gold']}$"
    return bool(verify(parse(gold), parse(row["prediction"])))


def ready(_: int) -> int:
    """Load the library, so that no round pays for it."""
    import logging

    import math_verify

    logging.disable()  # it tells of each time limit, with the whole response

    time.sleep(0.2)
    return len(math_verify.__name__)


def measure(grade: Callable[[Sequence[Row]], list[bool]], rows: Sequence[Row]) -> tuple[float, list[bool]]:
    """(seconds, verdicts)."""
    started = time.perf_counter()
    verdicts = grade(rows)
    return time.perf_counter() - started, verdicts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.rows.read_text().splitlines()]
    checker = EquivalenceChecker(num_workers=args.workers)
    with ThreadPoolExecutor(args.workers) as threads, ProcessPoolExecutor(args.workers) as processes:
        list(processes.map(ready, range(4 * args.workers)))
        list(threads.map(lambda _: checker("x+x", "2x"), range(4 * args.workers)))
        graders: dict[str, Callable[[Sequence[Row]], list[bool]]] = {
            "verigym": lambda some: list(
                threads.map(lambda row: grade_math(row["prediction"], row["gold"], verify=checker).passed, some)
            ),
            "math-verify": lambda some: list(processes.map(plain, some, chunksize=8)),
        }
        seconds: dict[str, list[float]] = {name: [] for name in graders}
        agreed = {}
        for _ in range(args.rounds):
            for name, grade in graders.items():
                spent, verdicts = measure(grade, rows)
                seconds[name].append(spent)
                agreed[name] = sum(v == row.get("label") for v, row in zip(verdicts, rows, strict=True)) / len(rows)
    checker.close()
    table = {
        name: {
            "answers_per_second": len(rows) / statistics.median(spent),
            "spread": [len(rows) / max(spent), len(rows) / min(spent)],
            "agreement_with_labels": agreed[name],
        }
        for name, spent in seconds.items()
    }
    for name, told in table.items():
        low, high = told["spread"]
        print(
            f"{name:12} {told['answers_per_second']:9.1f} answers/s ({low:.1f} to {high:.1f}), "
            f"agrees with labels {told['agreement_with_labels']:.4f}"
        )
    if args.json:
        facts = {
            "rows": args.rows.name,
            "num_rows": len(rows),
            "workers": args.workers,
            "rounds": args.rounds,
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "math-verify": version("math-verify"),
            "sympy": version("sympy"),
        }
        args.json.write_text(json.dumps({**facts, "results": table}, indent=2) + "\n")


if __name__ == "__main__":
    main()
