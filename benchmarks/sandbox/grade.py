"""What grading a patch costs beyond the tests' own time: verigym, and swebench's run_instance, one after the other.

    python benchmarks/sandbox/grade.py ROWS [--limit N] [--repeat R] [--out FILE]

ROWS have images that this engine holds (verigym tasks build-images). A row's gold patch is graded by both, in turn.
The tests' own time is measured apart: the row's test command in a container that is ready. The second
run that verigym makes where a patch passes (its tests' twins) counts as overhead.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

from verigym.envs.datasets.swe import row_of
from verigym.envs.registry.opening import read_any_tasks
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.sandbox.types import Limits
from verigym.envs.swe.checkout import checkout, placed
from verigym.envs.swe.grading import grade_patch
from verigym.envs.synthesis.parity import run_instance


async def own_time(backend, row) -> float:
    """Seconds of the row's test command in a container that is ready."""
    async with checkout(backend, row, limits=Limits()) as sandbox:
        await sandbox.arun(["sh", "-c", "git apply -"], cwd=row.root, stdin=(row.patch + row.test_patch).encode())
        started = time.monotonic()
        await sandbox.arun(["sh", "-c", row.test_cmd], cwd=row.root, env=row.env, timeout_s=600)
        return time.monotonic() - started


async def measure(path: Path, limit: int, repeat: int) -> list[dict]:
    backend = make_backend("docker")
    found = []
    for task in read_any_tasks(path)[:limit]:
        row = placed(row_of(task), backend)
        for _ in range(repeat):
            tests = await own_time(backend, row)
            seconds = {}
            for name, patch in (("gold", row.patch), ("empty", "")):
                started = time.monotonic()
                await grade_patch(backend, task, patch)
                seconds[name] = time.monotonic() - started - tests
            started = time.monotonic()
            await asyncio.to_thread(run_instance, task, row.patch, timeout_s=600)
            seconds["swebench"] = time.monotonic() - started - tests
            found.append({"task": task.id, "tests_s": tests, **seconds})
            print(f"{task.id}: " + ", ".join(f"{key} {value:.2f}" for key, value in found[-1].items() if key != "task"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = asyncio.run(measure(args.rows, args.limit, args.repeat))
    facts = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}",
        "versions": {name: version(name) for name in ("swebench", "docker")},
        "rows": found,
    }
    print(f"\noverhead beyond the tests' own time, seconds ({facts['machine']}):")
    for name in ("empty", "gold", "swebench"):
        values = sorted(row[name] for row in found)
        facts[name] = {"median": statistics.median(values), "low": values[0], "high": values[-1], "n": len(values)}
        print(f"  {name:9} median {facts[name]['median']:.2f}, {values[0]:.2f} to {values[-1]:.2f}, n {len(values)}")
    if args.out:
        args.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
