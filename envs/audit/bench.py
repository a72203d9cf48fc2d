"""A row's repository in one sandbox with its reference and hidden tests, and runs of these tests on variants of it.

Nobody forges anything here, so one sandbox serves all variants of a row: by forks of one warm process where pytest can
run the tests (``synthesis/probe.py``), although a script of the row says how; else by that script, once a variant.
"""

import re
import shlex
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from ...errors import GradingError, TaskError
from ...model.chat.encoding import from_bytes
from ...rewards.patches import paths_of
from ...rewards.swe import PASSING, found_ids
from ..datasets.eval_scripts import END, START
from ..datasets.swe import SWERow
from ..sandbox.types import Limits, Sandbox, SandboxBackend
from ..swe.checkout import checkout, environment_of, placed
from ..swe.scripted import run_script_once
from ..swe.worktree import run_script
from ..synthesis.probing import PROBE_ENV, Failure, Job, JobResult, Probe, file_of
from .files import apply, read
from .published import row_under_pytest, site_of

Files = Mapping[str, str | None]
"""Path -> text; None: there is no such file."""

MOST_COPY_S = 2.0
"""Processor seconds of one varied copy of a test."""
_SHOWS = re.compile(r"git (-c \S+ )?(status|show|diff)\b[^|&;<>]*$")
HELD_TIMES = 6
"""How much longer a run may take that is held up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the hidden tests said of a variant.

    Attributes:
        resolved: every deciding test passed.
        failing: deciding tests that did not pass and why, in the words of the failure; those that were not reached
            because one had failed are left out.
        ended: "done", "deadline" or "died".
        seconds: of the wall clock.
        own_s: without those in which others had the core, where that is known; by these it is told how much is tried.
        statuses: of all tests that ran.
        traced: what ran where; None unless asked for.
    """

    resolved: bool
    failing: Mapping[str, str] = field(default_factory=dict)
    ended: str = "done"
    seconds: float = 0.0
    own_s: float = 0.0
    statuses: Mapping[str, str] = field(default_factory=dict)
    traced: JobResult | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How tests are run: the same everywhere but for what is said here.

    Attributes:
        order, clock_s, watch, calls: as of ``probing.Job``.
        env: further variables, such as another hash seed.
        held_up: a word that says when the run is held up, as by others on a busy machine; "" never.
        whole: run all tests although one has failed.
        trace: note lines, functions and calls.
    """

    order: str = ""
    clock_s: int = 0
    held_up: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    watch: tuple[str, ...] = ()
    calls: tuple[tuple[str, int], ...] = ()
    whole: bool = False
    trace: bool = False


class Bench:
    """One row, ready to run.

    Attributes:
        row: placed; of a published row whose tests pytest runs, with pytest's ids.
        base, gold: the Python files that the reference changes, before and after it.
        tests, tests_before: the hidden tests' Python files, with the test patch and without.
        spent_s: processor seconds of the runs so far; of those by a script, of the wall.
        can_vary_runs: whether order, clock and tracing can be had; a row's script knows none of them.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        row: SWERow,
        probe: Probe | None,
        *,
        base: Files,
        gold: Files,
        tests: Files,
        tests_before: Files,
        published: SWERow | None = None,
    ) -> None:
        """``published``: the row as its script names the tests, where a probe runs them instead."""
        self.row, self.base, self.gold, self.tests, self.tests_before = row, base, gold, tests, tests_before
        self._sandbox, self._probe, self._published = sandbox, probe, published
        self._deadline_s, self._test_s = 600.0, 60.0
        self.spent_s = 0.0
        self.can_vary_runs = probe is not None

    async def run(
        self, variants: Sequence[Files], manner: Manner | None = None, *, first: Collection[str] = (), rest: bool = True
    ) -> list[Outcome]:
        """The outcomes of variants of the solved repository; {} is the reference itself.

        Args:
            first: tests that are run before the others, which only variants come to that pass them; () for no such
                division.
            rest: whether those others are run at all.
        Raises:
            TaskError: the tests cannot be run at all. SandboxError: the sandbox failed.
        """
        manner = manner or Manner()
        if self._probe is None:
            return [await self._by_script(files) for files in variants]
        wanted = tuple(dict.fromkeys(self.row.tests))
        others = tuple(test for test in wanted if test not in first)
        if not first or not others or _is_cut(wanted):
            return await self._run(variants, manner, wanted)
        outcomes = await self._run(variants, manner, tuple(test for test in wanted if test in first))
        if rest:
            passed = [number for number, one in enumerate(outcomes) if one.resolved]
            for number, one in zip(passed, await self._run([variants[n] for n in passed], manner, others)):
                statuses = {**outcomes[number].statuses, **one.statuses}
                outcomes[number] = replace(one, statuses=statuses, seconds=one.seconds + outcomes[number].seconds)
        return outcomes

    async def _run(self, variants: Sequence[Files], manner: Manner, tests: Sequence[str]) -> list[Outcome]:
        if not variants:
            return []
        jobs = [self._job(number, files, manner, tests) for number, files in enumerate(variants)]
        return [self._outcome(result, manner, tests) for result in await self._probed(jobs, manner.env)]

    async def use_script(self) -> bool:
        """Whether the row's script can run the tests instead, as it does from now on."""
        if self._probe is None or self._published is None:
            return False
        await apply(self._sandbox, self._published, self._published.test_patch, "test_patch", "-R")
        self._probe, self.row, self.can_vary_runs = None, self._published, False
        return True

    async def _probed(self, jobs: Sequence[Job], env: Mapping[str, str]) -> list[JobResult]:
        assert self._probe is not None
        results = await self._probe.run(jobs, env=env)
        self.spent_s += sum(one.cpu_s for one in results)
        return results

    async def run_in_manners(self, manners: Sequence[Manner]) -> list[Outcome]:
        """The reference's outcomes, run in several manners; those with the same variables share a process's start."""
        if self._probe is None:
            return [await self._by_script({}) for _ in manners]
        found: dict[int, Outcome] = {}
        kinds = {(*sorted(one.env.items()), bool(one.clock_s)): one for one in manners}
        for kind in kinds.values():
            env, moved = kind.env, bool(kind.clock_s)
            numbers = [number for number, one in enumerate(manners) if (one.env, bool(one.clock_s)) == (env, moved)]
            tests = tuple(dict.fromkeys(self.row.tests))
            jobs = [self._job(number, {}, manners[number], tests) for number in numbers]
            for number, result in zip(numbers, await self._probed(jobs, env)):
                found[number] = self._outcome(result, manners[number], tests)
        return [found[number] for number in range(len(manners))]

    async def run_others(
        self, variants: Sequence[Files], collect: Iterable[str], names: Sequence[str], manner: Manner | None = None
    ) -> list[Outcome]:
        """The outcomes of other tests than the row's, by the names of their functions, on variants.

        Args:
            names: () for all tests of the files.
            manner: its order, clock and variables.
        Returns:
            Of each variant an outcome whose ``failing`` holds every test of these names that failed.
        """
        assert self._probe is not None
        manner = manner or Manner()
        jobs = [
            Job(
                key=str(number),
                collect=tuple(collect),
                files=files,
                named=tuple(names),
                deadline_s=self._deadline_s,
                budget_s=self._deadline_s / 2,  # arguments that nobody chose may take for ever
                test_s=min(self._test_s, MOST_COPY_S),
                order=manner.order,
                clock_s=manner.clock_s,
                plain=True,
            )
            for number, files in enumerate(variants)
        ]
        results = await self._probed(jobs, manner.env)
        return [
            Outcome(
                resolved=False,
                failing={test: failure.message for test, failure in result.failures.items()},
                ended=result.ended,
                seconds=result.wall_s,
                statuses=result.outcomes,
            )
            for result in results
        ]

    async def standing(self, names: Collection[str]) -> set[str]:
        """Of some names, those that stand anywhere in the repository's tracked files at base."""
        if not names:
            return set()
        patterns = " ".join(f"-e {shlex.quote(name)}" for name in sorted(names))
        script = f"git grep -h -o -w -F -I {patterns} HEAD -- || [ $? = 1 ]"
        result = await run_script(self._sandbox, script, root=self.row.root)
        return set(from_bytes(result.stdout).split()) & set(names)

    def expect(self, gold: Outcome) -> None:
        """Set time limits by what the reference took."""
        self._deadline_s = 15.0 + 5.0 * gold.seconds
        self._test_s = 3.0 + 2.0 * gold.seconds

    def _job(self, number: int, files: Files, manner: Manner, tests: Sequence[str]) -> Job:
        cut = _is_cut(tests)
        return Job(
            key=str(number),
            collect=tuple(dict.fromkeys(map(file_of, tests))),
            files=files,
            keep=None if cut else tuple(tests),
            deadline_s=self._deadline_s * (HELD_TIMES if manner.held_up else 1),
            test_s=None if manner.held_up else self._test_s,
            max_failing=0 if manner.whole or cut else 1,
            mode="trace" if manner.trace else "test",
            order=manner.order,
            clock_s=manner.clock_s,
            held_up=manner.held_up,
            watch=manner.watch,
            calls=manner.calls,
        )

    def _outcome(self, result: JobResult, manner: Manner, tests: Sequence[str]) -> Outcome:
        deciding = found_ids(result.outcomes, tests)
        stopped = not manner.whole and any(result.outcomes.get(test) in ("failed", "error") for test in deciding)
        missed = [test for test in deciding if result.outcomes.get(test) not in PASSING]
        whole_run = result.ended == "done" and not result.not_collected
        failing = {
            test: _why(result, test) for test in missed if test in result.outcomes or not (stopped and whole_run)
        }
        return Outcome(
            resolved=result.ended == "done" and not missed,
            failing=failing,
            ended=result.ended,
            seconds=result.wall_s,
            own_s=result.own_s,
            statuses=result.outcomes,
            traced=result if manner.trace else None,
        )

    async def _by_script(self, files: Files) -> Outcome:
        """The row's own script on a variant; what it leaves in the tree goes away."""
        for path, text in files.items():
            if text is None:
                await run_script(self._sandbox, f"rm -f -- {shlex.quote(path)}", root=self.row.root)
            else:
                await self._sandbox.write_file(f"{self.row.root}/{path}", text.encode())
        try:
            score, report = await run_script_once(
                self._sandbox, self.row, only_tests(self.row.eval_script), self._deadline_s
            )
        finally:
            for path in files:
                text = self.gold.get(path)
                if text is not None:
                    await self._sandbox.write_file(f"{self.row.root}/{path}", text.encode())
        wanted = (*self.row.FAIL_TO_PASS, *self.row.PASS_TO_PASS)
        found = found_ids(report.statuses, wanted)
        failing = {test: report.detail for test in found if report.statuses.get(test) not in PASSING}
        return Outcome(
            resolved=score.passed,
            failing={} if score.passed else failing,
            ended="done" if report.complete else "died",
            seconds=report.duration_s,
            own_s=report.duration_s,
            statuses=report.statuses,
        )


def _is_cut(tests: Sequence[str]) -> bool:
    """Whether an id was cut at a blank, so that only a run of all tests tells what it means."""
    return any(test.count("[") > test.count("]") for test in tests)


def _why(result: JobResult, test: str) -> str:
    failure = result.failures.get(test) or result.failures.get(file_of(test)) or Failure(message="", frames=())
    if failure.message:
        return failure.message.strip()
    return result.error or f"it is {result.outcomes.get(test, 'not there')} ({result.ended})"


def only_tests(script: str) -> str:
    """A script without what resets the hidden files after the tests: they are in the tree for all variants. Nor does it
    show the repository's state: without its past that is every file."""
    lines = script.splitlines()
    ends = [number for number, line in enumerate(lines) if END in line]
    kept = [line for line in lines[: ends[0] + 1 if ends else None] if not _SHOWS.match(line)]
    assert any(START in line for line in kept)
    return "\n".join(kept) + "\n"


@asynccontextmanager
async def open_bench(backend: SandboxBackend, row: SWERow, *, limits: Limits | None = None) -> AsyncIterator[Bench]:
    """A row's bench, its sandbox closed at the end.

    Raises:
        TaskError: the row has no repository for this backend, or its patches do not apply, or its tests are neither
            pytest's ids nor run by a script. SandboxError: the sandbox failed.
    """
    row = placed(row, backend)
    odd = not all(file_of(test).endswith(".py") for test in row.tests)
    by_script = bool(row.eval_script and not row.interpreter and (row.image or odd))
    if not by_script and odd:
        raise TaskError(f"{row.instance_id}: its tests are no pytest ids and the row has no eval_script to run them")
    if by_script and (row.eval_script.count(START) != 1 or row.eval_script.count(END) != 1):
        raise GradingError(f"{row.instance_id}: eval_script does not have each of the markers {START!r}, {END!r} once")
    async with AsyncExitStack() as opened:
        limits = limits or Limits()
        sandbox = await opened.enter_async_context(checkout(backend, row, limits=limits, with_past=not by_script))
        site = await site_of(sandbox, row) if by_script else None
        if by_script and site is None:  # the script installs the repository, which may ask git for a version
            await opened.aclose()
            sandbox = await opened.enter_async_context(checkout(backend, row, limits=limits))
        paths = [path for pair in paths_of(row.patch) for path in pair if path.endswith(".py")]
        hidden = [new for _, new in paths_of(row.test_patch) if new.endswith(".py")]
        base = {path: await read(sandbox, row, path) for path in dict.fromkeys(paths)}
        before = {path: await read(sandbox, row, path) for path in dict.fromkeys(hidden)}
        if not by_script or site is not None:  # else the script brings them itself
            await apply(sandbox, row, row.test_patch, "test_patch")
        await apply(sandbox, row, row.patch, "patch")
        gold = {path: await read(sandbox, row, path) for path in base}
        tests = {path: await read(sandbox, row, path) for path in before}
        probe, placed_row = None, row
        if site is not None:
            probe = site.probe(sandbox)
            await probe.bring()
            found = await row_under_pytest(site, probe)
            if found is None:
                await apply(sandbox, row, row.test_patch, "test_patch", "-R")
            probe, placed_row = (probe, found) if found is not None else (None, row)
        elif not by_script:
            env = {**PROBE_ENV, **row.env}
            if row.pytest_plugins:
                env["PYTEST_PLUGINS"] = ",".join(row.pytest_plugins)
            probe = Probe(sandbox, python=(await environment_of(row)).python, env=env, workdir=row.root)
            await probe.bring()
        files = {"base": base, "gold": gold, "tests": tests, "tests_before": before}
        yield Bench(sandbox, placed_row, probe, published=row if by_script else None, **files)
