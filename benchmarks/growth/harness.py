"""Measures a subject at several sizes, each in a process of its own, and fits how its cost grows.

A subject is a function of a size and an empty folder: it prepares what is not measured and returns what is.
"""

import importlib
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Work = Callable[[], Any]
GROUPS = ("documents", "tasks", "runs", "texts", "repositories", "episodes", "models", "training")
LINEAR = 1.1
"""The largest exponent that counts as in line with the work."""
SHORTEST_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is measured.

    Attributes:
        make: (size, an empty folder) -> the work to measure.
        sizes: four, rising by a common factor.
        quick: the same of ``--quick``.
        unit: of a size, such as "documents".
    """

    make: Callable[[int, Path], Work]
    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    unit: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measurement: seconds of this process and of those it waited for, the wall clock, and MiB.

    ``peak_mib`` is the most that the work held above what was there before it.
    """

    size: int
    cpu_s: float
    wall_s: float
    peak_mib: float
    before_mib: float
    note: str = ""


def subjects(only: Sequence[str] = ("",)) -> dict[str, Subject]:
    """ "GROUP.NAME" -> subject, of those whose names begin with one of ``only``; no other group is imported."""
    groups = [g for g in GROUPS if any(f"{g}.".startswith(one) or one.startswith(f"{g}.") for one in only)]
    found = {f"{group}.{name}": subject for group in groups for name, subject in _of(group).items()}
    return {name: subject for name, subject in found.items() if name.startswith(tuple(only))}


def _of(group: str) -> dict[str, Subject]:
    return importlib.import_module(f"benchmarks.growth.{group}").SUBJECTS


def measure(name: str, size: int, *, timeout_s: float) -> Point | str:
    """One point in a fresh process; a message where it failed."""
    command = [sys.executable, "-m", "benchmarks.growth.harness", name, str(size)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=env)
    except subprocess.TimeoutExpired:
        return f"not done in {timeout_s:g} s"
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return (done.stderr.strip().splitlines() or ["no output"])[-1][:200]
    return Point(**json.loads(lines[-1]))


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost over log size, by least squares, of what took at least ``SHORTEST_S``: what is shorter is
    the interpreter's start and its caches. NaN for fewer than two such points."""
    pairs = [(math.log(size), math.log(cost)) for size, cost in zip(sizes, costs, strict=True) if cost >= SHORTEST_S]
    if len(pairs) < 2:
        return math.nan
    mean_x, mean_y = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in pairs)
    return sum((x - mean_x) * (y - mean_y) for x, y in pairs) / spread


def _used() -> tuple[float, float]:
    """(processor seconds, peak MiB) of this process; the seconds with those of children that have ended."""
    mine, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = sum(one.ru_utime + one.ru_stime for one in (mine, children))
    return seconds, mine.ru_maxrss / 1024


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _forget_peak() -> None:
    """Let the kernel's peak begin anew, so that what was prepared does not count."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return _used()[1]


def _one(name: str, size: int) -> Point:
    with tempfile.TemporaryDirectory(prefix="verigym-growth-") as folder:
        group, _, own = name.partition(".")
        work = _of(group)[own].make(size, Path(folder))
        _forget_peak()
        before, started, used = _resident_mib(), time.perf_counter(), _used()[0]
        note = work()
        wall = time.perf_counter() - started
        cpu = _used()[0] - used
        return Point(
            size=size,
            cpu_s=round(cpu, 4),
            wall_s=round(wall, 4),
            peak_mib=round(max(0.0, _peak_mib() - before), 1),
            before_mib=round(before, 1),
            note=note if isinstance(note, str) else "",
        )


if __name__ == "__main__":
    print(json.dumps(asdict(_one(sys.argv[1], int(sys.argv[2])))))
