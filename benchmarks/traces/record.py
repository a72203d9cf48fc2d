"""What recording costs, and whether it is the same twice.

    python -P benchmarks/traces/record.py [--programs 300] [--repeats 3] [--out FILE.json] [NAME==VERSION ...]

Generated programs are run traced and untraced in turns, ``--repeats`` times; each library's tests once untraced, twice
to filter (as ``verigym tasks traces`` does) and once more, with a third hash seed, to see how many of the kept traces
come again.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("libraries", nargs="*", metavar="NAME==VERSION")
    parser.add_argument("--programs", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--per-function", type=int, default=12)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    report: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }
    if args.programs:
        report["programs"] = asyncio.run(programs(args.programs, args.repeats))
        print(json.dumps(report["programs"], indent=2))
    report["libraries"] = {}
    for requirement in args.libraries:
        report["libraries"][requirement] = asyncio.run(library(requirement, args.per_function))
        print(requirement, json.dumps(report["libraries"][requirement], indent=2))
    if args.out is not None:
        args.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0


async def programs(num: int, repeats: int) -> dict[str, Any]:
    from verigym.envs.sandbox.choose import make_backend
    from verigym.envs.trace.programs import any_program
    from verigym.envs.trace.run import TraceBox

    jobs = [any_program(random.Random(number)) for number in range(num)]
    box = TraceBox(make_backend("local"))
    await box.trace(jobs[:5])
    seconds: dict[bool, list[float]] = {False: [], True: []}
    frames = 0
    for _ in range(repeats):
        for untraced in (True, False):
            began = time.perf_counter()
            runs = await box.trace(jobs, untraced=untraced)
            seconds[untraced].append(time.perf_counter() - began)
            frames = sum(len(run.trace.frames) for run in runs)
    traced, plain = statistics.median(seconds[False]), statistics.median(seconds[True])
    return {
        "num_programs": num,
        "num_frames": frames,
        "traced_seconds": seconds[False],
        "untraced_seconds": seconds[True],
        "programs_per_second": num / traced,
        "frames_per_second": frames / traced,
        "microseconds_a_frame_beyond_untraced": 1e6 * (traced - plain) / frames,
        "times_untraced": traced / plain,
    }


async def library(requirement: str, per_function: int) -> dict[str, Any]:
    from verigym.envs.sandbox.choose import make_backend
    from verigym.envs.synthesis.sources import open_source
    from verigym.envs.trace.context import SourceTree
    from verigym.envs.trace.examples import Sieve
    from verigym.envs.trace.library import RecordingSettings, examples_of, record_tests

    backend, settings = make_backend("local"), RecordingSettings(per_function=per_function)
    with tempfile.TemporaryDirectory(prefix="verigym-source-") as workdir:
        source = open_source(requirement, Path(workdir))
        plain = await record_tests(source, backend, settings, untraced=True)
        first, second, third = [await record_tests(source, backend, settings, hash_seed=seed) for seed in range(3)]
        tree, sieve = SourceTree(source.root), Sieve()
        same = [key for key, rows in first.calls.items() if second.calls.get(key) == rows]
        kept = again = 0
        for key in same:
            found = sum(1 for _ in sieve.kept(examples_of(first.calls[key], tree, origin=requirement)))
            kept += found
            again += found if third.calls.get(key) == first.calls[key] else 0
    return {
        "num_tests": first.end["num_tests"],
        "num_failed": [plain.end["num_failed"], first.end["num_failed"]],
        "untraced_seconds": plain.end["seconds"],
        "traced_seconds": [run.end["seconds"] for run in (first, second, third)],
        "num_calls": len(first.calls),
        "num_deterministic_calls": len(same),
        "counts": sieve.counts,
        "num_traces": kept,
        "num_traces_that_came_a_third_time": again,
        "determinism": again / kept if kept else None,
        "tracer_errors": [error for run in (first, second, third) for error in run.end["errors"]],
        "num_events": first.end["num_events"],
    }


if __name__ == "__main__":
    sys.exit(main())
