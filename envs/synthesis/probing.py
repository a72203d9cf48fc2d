"""Runs of a source's tests in a sandbox, for the making of tasks: the clean tree's, and variants of it."""

import io
import json
import logging
import tarfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...errors import TaskError
from ..sandbox.background import on_thread
from ..sandbox.python import python_environment
from ..sandbox.types import Sandbox, SandboxBackend, SandboxSpec
from .sources import Source

logger = logging.getLogger(__name__)

STAGE_S = 120.0
"""Wall-clock seconds of one run of the clean tree's tests, or between two tasks, unless said otherwise."""

TEST_S = 10.0
"""Processor seconds. A test of the clean tree that takes longer fails: no bug would be tried often enough with it."""

WORKDIR = "/workspace"
PROBE_FOLDER = ".verigym-probe"
"""In the tree, hidden from pytest; relative, so that the sandbox without isolation has one for each tree."""

_PACKAGE = "_verigym_probe"
_MODULES = tuple(
    f"probe{part}" for part in ("_values", "_clock", "_sample", "_stopwatch", "_unittest", "_recorder", "")
)
_MAIN = f"""\
import sys
from {_PACKAGE}.probe import main
del sys.path[0]  # this script's own folder
main(*sys.argv[1:])
"""

PROBE_ENV = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONHASHSEED": "0"}
"""As the tests are run for a reward (envs/swe/testing.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of tests on the tree with some files replaced; see probe.py.

    Attributes:
        collect: test files; () for all of a probe's script.
        files: path -> text that stands there during the run; None: the file is not there.
        keep: the tests to run; None for all.
        named: only tests whose function has one of these names; empty for all.
        budget_s: after so long no further test begins; None: all run. As in the next two, seconds in which other
            programs had the core do not count.
        test_s: processor seconds after which a test fails, or twice as many that it took or waited, where Python can be
            interrupted; None: never.
        collect_s: seconds after which files of tests that are not imported count as such that cannot be; one may take
            half of them; None: all that they need.
        sample: "" or a word: by it the tests run in rounds, each a sample twice as large (``probe_sample.py``).
        max_failing: stop when so many tests have failed, or one has by ``test_s``; 0 never.
        mode: "test"; "trace" also notes what each test calls; "warm" collects only, and compiles what it imports.
        order: of the tests: "" as collected, "reversed", or a word that they are shuffled by.
        clock_s: seconds that the wall clock is moved by, for time.time, datetime and date.
        held_up: "" or a word: by it the run is stopped and goes on again and again, as on a machine that others use; it
            takes some three times as long.
        watch: files, of whose lines mode "trace" notes which test came there.
        calls: (file, first line) of functions of which mode "trace" notes what they are given.
        plain: whether assertions are left without words for their failures, which is quicker.
    """

    key: str
    collect: tuple[str, ...]
    files: Mapping[str, str | None] = field(default_factory=dict)
    keep: tuple[str, ...] | None = None
    named: tuple[str, ...] = ()
    deadline_s: float = STAGE_S
    budget_s: float | None = None
    test_s: float | None = None
    collect_s: float | None = None
    sample: str = ""
    max_failing: int = 0
    mode: str = "test"
    order: str = ""
    clock_s: int = 0
    held_up: str = ""
    watch: tuple[str, ...] = ()
    calls: tuple[tuple[str, int], ...] = ()
    plain: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a test failed, or a file could not be collected.

    Attributes:
        message: the exception's last words.
        frames: (file, line) of the tree on its way, outermost first.
        inputs: name -> text of the plain values that the test could name: parameters as they were before it ran, its
            variables, attributes ("self.name") and globals as they were when it failed.
    """

    message: str
    frames: tuple[tuple[str, int], ...]
    inputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What a run of tests said.

    Attributes:
        ended: "done", "deadline", or "died" where the process went away.
        error: the exception that pytest itself ended with.
        outcomes: test -> "passed", "failed", "error", "skipped", "xfailed" or "xpassed".
        not_collected: files that could not be imported.
        locations: test -> (file, first line) of its function; in modes "trace" and "warm" only.
        names: test -> what unittest calls it, and below it the first line of its description; likewise, of a script.
        covered: test -> (file, first line) of the tree's functions it entered; in mode "trace" only.
        lines: test -> (file, line) of the watched files that it ran; in mode "trace" only.
        calls: test -> (file, first line, parameter -> source of its value) of calls asked for; in mode "trace" only.
        cpu_s: processor seconds of the run and of what it waited for.
        own_s: of the clock, without those in which others had the core.
        collected: file -> how many tests it has.
        sampled: of how many tests each round was to be.
        stopped: whether the job's ``budget_s`` ended the run.
        hung: whether a test took longer than ``test_s``, whatever came of it.
        modules: imported modules that are none of the tree's; in mode "warm" only.
    """

    ended: str
    error: str = ""
    exit_code: int | None = None
    wall_s: float = 0.0
    outcomes: Mapping[str, str] = field(default_factory=dict)
    durations: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    not_collected: tuple[str, ...] = ()
    locations: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    covered: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    lines: Mapping[str, frozenset[tuple[str, int]]] = field(default_factory=dict)
    calls: Mapping[str, tuple[tuple[str, int, Mapping[str, str]], ...]] = field(default_factory=dict)
    cpu_s: float = 0.0
    own_s: float = 0.0
    collected: Mapping[str, int] = field(default_factory=dict)
    sampled: tuple[int, ...] = ()
    stopped: bool = False
    hung: bool = False
    modules: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the session ran to its own end and every file was collected."""
        return self.ended == "done" and self.exit_code in (0, 1) and not self.not_collected

    def with_outcome(self, *outcomes: str) -> list[str]:
        return [test for test, outcome in self.outcomes.items() if outcome in outcomes]


@asynccontextmanager
async def open_probe(source: Source, backend: SandboxBackend) -> AsyncIterator["Probe"]:
    """A fresh sandbox with the source's tree and environment, closed at the end.

    Raises:
        TaskError: the environment cannot be made. SandboxError: the sandbox cannot be made.
    """
    # Installing the environment may take a minute the first time; other workers go on meanwhile.
    environment = await on_thread(python_environment, source.requirements)
    sandbox = await backend.create(SandboxSpec(workdir=WORKDIR, binds=tuple(environment.binds)))
    try:
        probe = Probe(sandbox, python=str(environment.python), env={**PROBE_ENV, **source.env})
        await probe.place(source)
        yield probe
    finally:
        await sandbox.aclose()


class Probe:
    """A sandbox with the clean tree, and runs of its tests."""

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        python: str,
        env: Mapping[str, str],
        workdir: str = WORKDIR,
        script: Sequence[str] = (),
    ) -> None:
        """``workdir``: the tree's folder inside, absolute. ``script``: path and arguments of a script of the tree that
        prepares its tests and hands them to unittest, in whose place they are run; the path "" is unittest's own."""
        self._sandbox = sandbox
        self._workdir = workdir
        self._python = python
        self._env = env
        self._script = tuple(script)
        self._num_runs = 0
        self._modules: list[str] = []

    async def place(self, source: Source) -> None:
        """Bring the source's clean tree and the probe's program into the sandbox."""
        await self._sandbox.put_archive(packed_tree(source.root), self._workdir)
        await self.bring()

    async def bring(self) -> None:
        """Bring the probe's program into the sandbox, where the tree is there already."""
        for path, text in probe_program().items():
            await self._sandbox.write_file(f"{self._workdir}/{PROBE_FOLDER}/{path}", text)

    async def import_once(self, modules: Sequence[str]) -> None:
        """From now on import modules that are none of the tree's once for all runs, but where clocks are moved."""
        self._modules = [f"{PROBE_FOLDER}/modules.json"]
        await self._sandbox.write_file(f"{self._workdir}/{self._modules[0]}", json.dumps(modules).encode())

    async def warm(self, test_files: Sequence[str]) -> None:
        """Compile what some files of tests import, once for all runs to come."""
        await self.run([Job(key="warm", collect=tuple(test_files), mode="warm")])

    async def run(self, jobs: Sequence[Job], *, env: Mapping[str, str] | None = None) -> list[JobResult]:
        """The results of the jobs, in their order.

        Args:
            env: variables of these runs, beside the probe's.
        Raises:
            TaskError: the tests cannot be run at all (no pytest in the environment).
            SandboxError: the sandbox failed.
        """
        results: list[JobResult] = []
        while len(results) < len(jobs):
            results += await self._run_some(jobs[len(results) :], env or {})
        return results

    async def _run_some(self, jobs: Sequence[Job], env: Mapping[str, str]) -> list[JobResult]:
        """Results of the first jobs, at least of one: a job may take the whole process down."""
        self._num_runs += 1
        order, answer = (f"{PROBE_FOLDER}/{kind}-{self._num_runs}.json" for kind in ("jobs", "results"))
        asked = [{**asdict(job), "script": self._script} for job in jobs]
        await self._sandbox.write_file(f"{self._workdir}/{order}", json.dumps(asked).encode())
        modules = [] if any(job.clock_s for job in jobs) else self._modules
        process = await self._sandbox.arun(
            [self._python, f"{PROBE_FOLDER}/main.py", order, answer, *modules],
            cwd=self._workdir,
            env={**self._env, **env},
            timeout_s=sum(job.deadline_s for job in jobs) + 60.0,
        )
        try:
            lines = (await self._sandbox.read_file(f"{self._workdir}/{answer}")).decode().split("\n")[:-1]
        except FileNotFoundError:
            said = process.stderr.decode(errors="replace").strip().splitlines() or ["nothing on stderr"]
            raise TaskError(f"the tests cannot be run: the probe ended with {process.exit_code} ({said[-1]})") from None
        results = [_result(json.loads(line)) for line in lines]
        if len(results) < len(jobs):
            logger.info("the probe was killed (%s) in job %s", process.killed, jobs[len(results)].key)
            results.append(JobResult(ended="died"))
        return results


def packed_tree(root: Path) -> bytes:
    """A tree as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, arcname=path.relative_to(root).as_posix(), recursive=False)
    return buffer.getvalue()


def probe_program() -> dict[str, bytes]:
    """Path -> text of the probe's program, for a folder in the sandbox: ``main.py`` and a package."""
    here = Path(__file__).parent
    files = {f"{_PACKAGE}/{name}.py": (here / f"{name}.py").read_bytes() for name in _MODULES}
    return {"main.py": _MAIN.encode(), f"{_PACKAGE}/__init__.py": b"", **files}


def _result(record: Mapping[str, Any]) -> JobResult:
    return JobResult(
        ended=record["ended"],
        error=record.get("error", ""),
        exit_code=record.get("exit_code"),
        wall_s=record["wall_s"],
        outcomes=record.get("outcomes", {}),
        durations=record.get("durations", {}),
        failures={
            test: Failure(
                message=failure["message"],
                frames=tuple((path, line) for path, line in failure["frames"]),
                inputs=failure["inputs"],
            )
            for test, failure in record.get("failures", {}).items()
        },
        not_collected=tuple(record.get("not_collected", ())),
        locations={test: (path, line) for test, (path, line) in record.get("locations", {}).items()},
        names=record.get("names", {}),
        covered={
            test: tuple((path, line) for path, line in places) for test, places in record.get("covered", {}).items()
        },
        lines={
            test: frozenset((path, line) for path, line in places) for test, places in record.get("lines", {}).items()
        },
        calls={
            test: tuple((path, line, given) for path, line, given in made)
            for test, made in record.get("calls", {}).items()
        },
        cpu_s=record.get("cpu_s", 0.0),
        own_s=record.get("own_s", 0.0),
        collected=record.get("collected", {}),
        sampled=tuple(record.get("sampled", ())),
        stopped=record.get("stopped", False),
        hung=record.get("hung", False),
        modules=tuple(record.get("modules", ())),
    )


def file_of(test: str) -> str:
    """The file of a pytest node id."""
    return test.partition("::")[0]
