"""What the clean tree's tests say: which pass, how long they take, which functions each enters."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ...errors import TaskError
from .probing import STAGE_S, TEST_S, Job, JobResult, Probe, file_of, warming
from .sources import Source, Tell, silent

logger = logging.getLogger(__name__)

SLACK_S = 3.0
DEADLINE_FACTOR = 5.0
COMPILED = (".c", ".cc", ".cpp", ".pyx", ".pxd", ".rs", ".f", ".f90")


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What the clean tree's tests say.

    Attributes:
        passing: tests that passed in both of two runs, in running order.
        durations: test -> seconds.
        locations: test -> (file, first line) of the function that it runs.
        covering: (file, first line) of a package's function -> the passing tests that enter it, in running order.
        overhead_s: of a run, what is not spent in tests: starting and collecting.
    """

    passing: tuple[str, ...]
    durations: Mapping[str, float]
    locations: Mapping[str, tuple[str, int]]
    covering: Mapping[tuple[str, int], tuple[str, ...]]
    overhead_s: float

    @property
    def total_s(self) -> float:
        return sum(self.durations.get(test, 0.0) for test in self.passing)

    @property
    def test_files(self) -> tuple[str, ...]:
        """Files with passing tests, in running order."""
        return tuple(dict.fromkeys(file_of(test) for test in self.passing))

    def expected_s(self, tests: Sequence[str]) -> float:
        """Seconds that a run of some tests takes on the clean tree."""
        return self.overhead_s + sum(self.durations.get(test, 0.0) for test in tests)

    def deadline_s(self, tests: Sequence[str]) -> float:
        return SLACK_S + DEADLINE_FACTOR * self.expected_s(tests)

    def to_json(self) -> dict[str, Any]:
        places = [[path, line, list(tests)] for (path, line), tests in self.covering.items()]
        return {
            "passing": list(self.passing),
            "durations": dict(self.durations),
            "locations": {test: list(place) for test, place in self.locations.items()},
            "covering": places,
            "overhead_s": self.overhead_s,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Baseline":
        """Inverse of ``to_json``."""
        return cls(
            passing=tuple(value["passing"]),
            durations=value["durations"],
            locations={test: (path, line) for test, (path, line) in value["locations"].items()},
            covering={(path, line): tuple(tests) for path, line, tests in value["covering"]},
            overhead_s=value["overhead_s"],
        )


async def measure_baseline(probe: Probe, source: Source, *, stage_s: float = STAGE_S, tell: Tell = silent) -> Baseline:
    """Run the clean tree's tests twice, the first time noting what each test enters.

    Args:
        stage_s: after so many seconds of a run no further test begins; those that were not reached count as absent.
        tell: is told what is being done.
    Raises:
        TaskError: no file of tests can be imported, or fewer than two tests pass both times: a task needs one that the
            bug breaks and one that it does not. The message says what is lacking.
    """
    collected = await _importable(probe, source, stage_s, tell)
    bounds: dict[str, Any] = {"budget_s": stage_s, "test_s": TEST_S, "deadline_s": stage_s + 12 * TEST_S}
    async with ticking(tell, f"running the tests of {len(collected)} files, without a bug", stage_s):
        (traced,) = await probe.run([Job(key="trace", collect=collected, mode="trace", **bounds)])
    if traced.stopped:
        logger.warning(
            "%s: %d of its %d tests were run in %g s; the others are left out (more: --stage-timeout)",
            source.name,
            len(traced.outcomes),
            traced.collected,
            stage_s,
        )
    ran = tuple(dict.fromkeys(file_of(test) for test in traced.outcomes))
    passing = traced.with_outcome("passed")
    again = JobResult(ended="done")
    if len(passing) >= 2:
        async with ticking(tell, f"running {len(passing)} tests once more", stage_s):
            (again,) = await probe.run([Job(key="again", collect=ran, keep=tuple(passing), **bounds)])
        passing = [test for test in again.with_outcome("passed") if test in set(passing)]
    if len(passing) < 2:
        raise TaskError(
            f"{source.name}=={source.version}: {len(passing)} of its {len(traced.outcomes)} tests pass without any bug "
            f"({_trouble(traced, again)}). {_with_what(source)}"
        )
    packaged = set(source.package_files)
    covering: dict[tuple[str, int], list[str]] = defaultdict(list)
    for test in passing:
        for place in traced.covered.get(test, ()):
            if place[0] in packaged:
                covering[place].append(test)
    return Baseline(
        passing=tuple(passing),
        durations=again.durations,
        locations=traced.locations,
        covering={place: tuple(tests) for place, tests in covering.items()},
        overhead_s=max(0.0, again.wall_s - sum(again.durations.values())),
    )


async def _importable(probe: Probe, source: Source, stage_s: float, tell: Tell) -> tuple[str, ...]:
    """The files of tests that can be imported, which compiles what they import.

    Raises:
        TaskError: none can, or pytest cannot begin.
    """
    async with ticking(tell, f"importing {len(source.test_files)} files of tests", stage_s):
        (warm,) = await probe.run([warming(source, deadline_s=stage_s)])
    missing = [path for path in source.test_files if path in warm.not_collected]
    collected = tuple(path for path in source.test_files if path not in missing)
    if warm.ended == "done" and missing:
        reasons = list(dict.fromkeys(warm.failures[path].message for path in missing if path in warm.failures))
        told = (
            f"{len(missing)} of {len(source.test_files)} files of tests cannot be imported ({'; '.join(reasons[:3])})"
        )
        if not collected:
            raise TaskError(f"{source.name}=={source.version}: {told}. {_compiled_parts(source)}{_with_what(source)}")
        logger.warning("%s: %s", source.name, told)
    return collected


def _compiled_parts(source: Source) -> str:
    """A sentence about sources of the tree that a compiler would have to make modules of; "" where it has none."""
    found = sorted(
        path.relative_to(source.root).as_posix()
        for path in source.root.rglob("*")
        if path.suffix in COMPILED and path.is_file()
    )
    if not found:
        return ""
    return f"It has parts that are compiled ({', '.join(found[:2])}), and nothing is compiled here. "


def _with_what(source: Source) -> str:
    return (
        f"They ran with {', '.join(source.requirements)}; give what else they need, or another version, by "
        "--with REQUIREMENT"
    )


@asynccontextmanager
async def ticking(tell: Tell, what: str, most_s: float) -> AsyncIterator[None]:
    """Tell every second how many seconds of how many have gone by, as long as the block runs."""
    began = time.monotonic()

    async def tick() -> None:
        while True:
            tell(f"{what}: seconds", round(time.monotonic() - began), round(most_s))
            await asyncio.sleep(1.0)

    ticker = asyncio.create_task(tick())
    try:
        yield
    finally:
        ticker.cancel()


def _trouble(*results: JobResult) -> str:
    """The first thing that went wrong, in one line."""
    for result in results:
        if result.error:
            return " ".join(result.error.split())
        if result.ended != "done":
            return f"the run ended by {result.ended}"
        for failure in result.failures.values():
            return failure.message.splitlines()[0]
        if result.not_collected:
            return f"{', '.join(result.not_collected)} cannot be imported"
    return "they are skipped"
