"""What the clean tree's tests say: which pass, how long they take, which functions each enters."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import TaskError
from .probing import STAGE_S, TEST_S, Job, JobResult, Probe, file_of
from .share import SUITE_S, Share, drawn_files
from .sources import Source, Tell, silent
from .steady import steady_tests

logger = logging.getLogger(__name__)

SLACK_S = 3.0
DEADLINE_FACTOR = 5.0
TRACING_FACTOR = 2.0
"""Seconds of tests whose calls are noted, for one of tests that only run."""
COLLECT_S = 8.0
"""Seconds in which files of tests are imported, where the suite has a budget."""
SLOW_PARTS, ENOUGH = (0.01, 0.25), 32
"""Of the budget: a test of a share that takes longer is left out, as it runs a dozen times for each task; the second
bound is taken where the first leaves hardly any test."""
COMPILED = (".c", ".cc", ".cpp", ".pyx", ".pxd", ".rs", ".f", ".f90")


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What the clean tree's tests say.

    Attributes:
        passing: tests that passed in both of two runs, and at other times and in another order, in running order.
        durations: test -> seconds.
        locations: test -> (file, first line) of the function that it runs.
        covering: (file, first line) of a package's function -> the passing tests that enter it, in running order.
        overhead_s: of a run, what is not spent in tests: starting and collecting.
        share: how much of the suite this is; None where it is the whole.
    """

    passing: tuple[str, ...]
    durations: Mapping[str, float]
    locations: Mapping[str, tuple[str, int]]
    covering: Mapping[tuple[str, int], tuple[str, ...]]
    overhead_s: float
    share: Share | None = None

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
            "share": asdict(self.share) if self.share is not None else None,
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
            share=Share(**value["share"]) if value.get("share") else None,
        )


async def measure_baseline(
    probe: Probe,
    source: Source,
    *,
    suite_s: float = SUITE_S,
    stage_s: float = STAGE_S,
    seed: int = 0,
    tell: Tell = silent,
) -> Baseline:
    """Run the clean tree's tests twice, once as they come, once noting what each enters.

    A suite that takes longer than its budget is measured by a share. Of one of thousands of tests some files are drawn.
    What is left runs in rounds, each a sample spread over files and functions and twice as large as the one before,
    until time is up; the whole rounds, run once more, are the share. So the clock says only how many rounds there are.

    Args:
        suite_s: seconds that the suite may take to be run whole, without those in which other programs had the core;
            0: as many as it needs.
        stage_s: after so many seconds of a run no further test begins, whatever its budget.
        seed: draws the share.
        tell: is told what is being done.
    Raises:
        TaskError: no file of tests can be imported in time, or fewer than two tests pass both times: a task needs one
            that the bug breaks and one that it does not. The message says what is lacking.
    """
    measuring = _Measuring(probe, source, suite_s, stage_s, seed, tell)
    counts = await measuring.import_files()
    files = drawn_files(counts, seed) if suite_s else tuple(counts)
    timed = await measuring.run("tests", files) if len(files) == len(counts) else None
    kept = None if timed is None or timed.stopped else timed.with_outcome("passed")
    if timed is not None and kept is not None and len(kept) < 2:
        raise measuring.too_few(kept, timed)
    for part in SLOW_PARTS:
        traced = await measuring.trace(files, kept, slow_part=part)
        whole = set(list(traced.outcomes)[: _in_whole_rounds(traced) if traced.stopped else None])
        chosen = [test for test in traced.with_outcome("passed") if test in whole]
        if kept is not None or len(chosen) >= ENOUGH:
            break
    again = timed
    if again is None or kept is None:
        ran = set(map(file_of, chosen))
        again = await measuring.run("chosen tests", tuple(path for path in files if path in ran), chosen)
    passing = [test for test in again.with_outcome("passed") if test in set(chosen)]
    if len(passing) < 2:
        raise measuring.too_few(passing, traced, again)
    passing = await measuring.steady(passing, again)
    share = None
    if kept is None or traced.stopped:
        chosen_files = len({file_of(test) for test in passing})
        share = Share(
            seed=seed,
            collected=sum(counts.values()),
            files=len(counts),
            chosen=len(passing),
            chosen_files=chosen_files,
        )
        logger.warning("%s: %s", source.name, share)
    return Baseline(
        passing=tuple(passing),
        durations=again.durations,
        locations=traced.locations,
        covering=_covering(source, traced, passing),
        overhead_s=max(0.0, again.wall_s - sum(again.durations.values())),
        share=share,
    )


def _in_whole_rounds(result: JobResult) -> int:
    """Of how many tests the rounds are that were run whole; all that were run where not even the first was."""
    ran, whole = len(result.outcomes), 0
    for size in result.sampled:
        if whole + size > ran:
            break
        whole += size
    return whole or ran


def _covering(source: Source, traced: JobResult, passing: Sequence[str]) -> dict[tuple[str, int], tuple[str, ...]]:
    packaged = set(source.package_files)
    covering: dict[tuple[str, int], list[str]] = defaultdict(list)
    for test in passing:
        for place in traced.covered.get(test, ()):
            if place[0] in packaged:
                covering[place].append(test)
    return {place: tuple(tests) for place, tests in covering.items()}


@dataclass(frozen=True, slots=True)
class _Measuring:
    """Runs of the clean tree's tests, within their bounds."""

    probe: Probe
    source: Source
    suite_s: float
    stage_s: float
    seed: int
    tell: Tell

    async def import_files(self) -> dict[str, int]:
        """File -> how many tests it has, of the files that can be imported in time; compiles what they import.

        Raises:
            TaskError: none can, or pytest cannot begin.
        """
        source = self.source
        collect_s = min(COLLECT_S, self.stage_s) if self.suite_s else None
        job = Job(key="warm", collect=source.test_files, mode="warm", deadline_s=self.stage_s, collect_s=collect_s)
        async with ticking(self.tell, f"importing {len(source.test_files)} files of tests", collect_s or self.stage_s):
            (warm,) = await self.probe.run([job])
        missing = [path for path in source.test_files if path in warm.not_collected]
        if missing:
            reasons = list(dict.fromkeys(warm.failures[path].message for path in missing if path in warm.failures))
            told = (
                f"{len(missing)} of {len(source.test_files)} files of tests cannot be imported "
                f"({'; '.join(reasons[:3])})"
            )
            if len(missing) == len(source.test_files):
                raise TaskError(
                    f"{source.name}=={source.version}: {told}. {_compiled_parts(source)}{_with_what(source)}"
                )
            logger.warning("%s: %s", source.name, told)
        if not warm.collected:
            raise self.too_few((), warm)
        return {path: warm.collected[path] for path in source.test_files if path in warm.collected}

    async def run(self, what: str, files: tuple[str, ...], keep: Sequence[str] | None = None) -> JobResult:
        """Tests as they come."""
        budget_s = min(self.suite_s or self.stage_s, self.stage_s)
        test_s = min(TEST_S, self.suite_s or TEST_S)
        job = Job(key=what, collect=files, keep=None if keep is None else tuple(keep), **self._bounds(budget_s, test_s))
        async with ticking(self.tell, f"running the {what} of {len(files)} files, without a bug", budget_s):
            (result,) = await self.probe.run([job])
        return result

    async def trace(self, files: tuple[str, ...], keep: Sequence[str] | None, *, slow_part: float) -> JobResult:
        """Tests in rounds, noting what they enter; of a long suite all may be kept (None), but slow ones are not."""
        budget_s = min(TRACING_FACTOR * self.suite_s or self.stage_s, self.stage_s)
        test_s = slow_part * budget_s if keep is None and self.suite_s else TEST_S
        job = Job(
            key="trace",
            collect=files,
            keep=None if keep is None else tuple(keep),
            mode="trace",
            sample=f"{self.seed}/{self.source.name}",
            **self._bounds(budget_s, test_s),
        )
        async with ticking(self.tell, f"noting what the tests of {len(files)} files enter", budget_s):
            (result,) = await self.probe.run([job])
        return result

    async def steady(self, passing: list[str], clean: JobResult) -> list[str]:
        """Those of the tests that pass whatever the time and the order are.

        Raises:
            TaskError: fewer than two do.
        """
        budget_s = min(self.suite_s or self.stage_s, self.stage_s)
        bounds = self._bounds(budget_s, min(TEST_S, self.suite_s or TEST_S))
        async with ticking(
            self.tell, f"running {len(passing)} tests at other times and in another order", 6 * budget_s
        ):
            found = await steady_tests(self.probe, passing, name=self.source.name, suite_s=clean.wall_s, bounds=bounds)
        if len(found) < 2:
            raise TaskError(
                f"{self.source.name}=={self.source.version}: {len(found)} of its {len(passing)} tests pass at any "
                "time, in any order and with any hash seed; the others would refuse right solutions some day"
            )
        return found

    def _bounds(self, budget_s: float, test_s: float) -> dict[str, Any]:
        return {"budget_s": budget_s, "test_s": test_s, "deadline_s": self.stage_s + 12 * TEST_S}

    def too_few(self, passing: Sequence[str], *results: JobResult) -> TaskError:
        """What to raise where fewer than two tests pass, with the reason."""
        source, ran = self.source, max(len(result.outcomes) for result in results)
        return TaskError(
            f"{source.name}=={source.version}: {len(passing)} of its {ran} tests pass without any bug "
            f"({_trouble(*results)}). {_with_what(source)}"
        )


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
