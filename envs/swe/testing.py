"""Evidence from tests: a run of pytest inside a sandbox, and the same tests once more as twins.

``testing_guest.py`` and its modules are the program that runs in the sandbox; docs/design/002-honest-grading.md says
what it can and cannot catch.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ...errors import GradingError
from ...rewards.swe import TestReport
from ..sandbox.boot import boot_line, modules, portable, sized
from ..sandbox.types import Process, ProcessResult, Sandbox
from ..tools.bounds import readable
from .rounds import MORE_ROUNDS, Finding, judge_rounds, plan_rounds
from .tracebacks import read_tracebacks

_PACKAGE = "_verigym_runner"
_MODULES = (
    "testing_signed",
    "twin_means",
    "twin_operands",
    "twins",
    "testing_options",
    "testing_builtins",
    "testing_pristine",
    "testing_integrity",
    "testing_outcomes",
    "testing_recorder",
    "testing_rounds",
    "testing_guest",
)

_MORE_MODULES = {"unittest": "testing_unittest", "sympy": "testing_sympy"}
"""Of runners that are not pytest; those of pytest load nothing that pytest does not."""

MOST_SAID = 16 << 20
MOST_DETAIL = 1_000
END_S = 30.0
"""Most bytes of results, most characters of the line on them, and how long a run that has said them may take to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """What runs the tests.

    Attributes:
        kind: "pytest"; "unittest", where a script of the repository hands its suite to unittest; "sympy".
        script: path of that script; "" is ``python -m unittest``.
        arguments: of the script.
    """

    kind: Literal["pytest", "unittest", "sympy"] = "pytest"
    script: str = ""
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRun:
    """What to run, and how.

    Attributes:
        workdir: the repository's folder inside, absolute; test paths are relative to it.
        python: the interpreter inside; its environment holds pytest.
        tests: files ("tests/test_a.py") or node ids ("tests/test_a.py::test_b", with or without parameters).
        env: environment variables of the tests. PYTHONPATH is put on sys.path after pytest is loaded;
            PYTHONHASHSEED is 0 unless given; no other PYTHON variable reaches the interpreter itself.
        plugins: pytest plugins to load, by module name; none is loaded by itself.
        distrusted: paths that the patch under test added; they shadow no module of the environment.
        support: folders of the repository's own test support; their code is what it was before the run, too.
        sources_first: names that the repository has are found in it before the environment, which holds a copy of it.
        runner: pytest unless given; the others run what their script collects, and ``tests`` are files alone.
    """

    __test__ = False

    workdir: str
    python: str
    tests: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    distrusted: tuple[str, ...] = ()
    support: tuple[str, ...] = ()
    sources_first: bool = False
    runner: Runner = Runner()


async def run_tests(
    sandbox: Sandbox,
    *,
    workdir: str,
    python: str,
    tests: Sequence[str],
    env: Mapping[str, str],
    timeout_s: float,
    plugins: Sequence[str] = (),
    distrusted: Sequence[str] = (),
) -> TestReport:
    """Run tests of a repository that lies in a sandbox; the arguments are TestRun's.

    Returns:
        The report. Its ids are pytest's node ids, relative to ``workdir``; for a file, all its tests are in it. A
        run that the code under test ended, hung or tampered with is a report that no test has passed in.
    Raises:
        GradingError: pytest could not even be loaded, so nothing of the repository can be the reason.
        SandboxError: the sandbox failed.
    """
    run = TestRun(
        workdir=workdir,
        python=python,
        tests=tuple(tests),
        env=env,
        plugins=tuple(plugins),
        distrusted=tuple(distrusted),
    )
    return await execute(sandbox, run, timeout_s=timeout_s)


async def execute(sandbox: Sandbox, run: TestRun, *, timeout_s: float) -> TestReport:
    """``run_tests`` for a TestRun."""
    report, _ = await _execute(sandbox, run, again=None, timeout_s=timeout_s)
    return report


async def find_forgery(
    sandbox: Sandbox,
    run: TestRun,
    deciding: Sequence[str],
    others: Sequence[str] = (),
    *,
    limit_s: float = 60.0,
    timeout_s: float,
) -> Finding:
    """Run tests that are said to pass again, half the time as twins: the same tests in the same files, made to fail.

    Which run of which test is a twin is decided here; what is said about it there can only make a verdict worse. The
    runs begin in one state, that after collection, in processes forked from one. Where tests do not pass again so,
    they get all tests of their files around them, and then a process of their own each.

    Args:
        deciding: ids of tests that have to fail as twins and to pass otherwise, as often as ROUNDS says.
        others: ids of tests that are run once as a twin and once as they are; they have to fail as twins.
        limit_s: of one round.
    Raises:
        GradingError: the run was stopped by its deadline, or as ``run_tests``.
    """
    shown = ""
    for fork, everything in ((True, False), (True, True), (False, True)):
        plans = plan_rounds(deciding, others, MORE_ROUNDS)
        wholes = [plans] if fork else [[plan] for plan in plans]
        outcomes: list[Mapping[str, Any]] = []
        untwinned: set[str] = set()
        for part in wholes:
            again = {"rounds": part, "fork": fork, "everything": everything, "limit_s": limit_s}
            report, done = await _execute(sandbox, run, again=again, timeout_s=timeout_s)
            if done is None:
                if report.detail.startswith("stopped: timeout"):
                    raise GradingError(f"the tests' twins took longer than {timeout_s:g} s, which the tests did not")
                return Finding(forged=f"a second run behaved differently: {report.detail}")
            if done["tampered"]:
                return Finding(forged=f"a second run behaved differently: {report.detail}")
            outcomes += done.get("rounds") or [{}] * len(part)
            untwinned.update(done.get("untwinned") or ())
        forged, shown = judge_rounds(plans, outcomes, set(deciding), untwinned)
        if forged:
            return Finding(forged=forged)
        if not shown:
            return Finding(untrusted=tuple(test for test in deciding if test in untwinned))
    return Finding(forged=shown)


async def execute_and_doubt(
    sandbox: Sandbox,
    run: TestRun,
    choose: Callable[[TestReport], tuple[Sequence[str], Sequence[str]] | None],
    *,
    timeout_s: float,
) -> tuple[TestReport, Finding | None]:
    """``execute``, and where the tests pass their first rounds in the same process: the tests themselves run in a fork
    of it, made after collection, like each of the rounds.

    Args:
        choose: what ``find_forgery`` is to be given for a report (deciding, others); None where there is no doubt to be
            had, because tests failed.
        timeout_s: of the tests, and then of the rounds.
    Returns:
        (the report, what the rounds have shown). None: nothing was chosen, the process is none that bears a fork
        (threads, children, sockets), or the rounds leave a doubt: ``find_forgery`` in a fresh sandbox has to tell.
    Raises: as ``execute``.
    """
    talk = await _Talk.begin(sandbox, run, timeout_s=timeout_s)
    report, done = await talk.first()
    chosen = choose(report) if done is not None and done.get("waits") else None
    if chosen is None:
        await talk.end()
        return report, None
    plans = plan_rounds(*chosen)
    limit_s = 10.0 + 5.0 * report.duration_s
    found = await talk.ask(
        {"rounds": plans, "fork": True, "everything": False, "limit_s": limit_s}, timeout_s=timeout_s
    )
    if found is None:
        return report, None
    if found["tampered"]:
        return report, Finding(forged=f"a second run behaved differently: {_detail(found)}")
    untwinned: set[str] = set(found.get("untwinned") or ())
    forged, doubt = judge_rounds(plans, found.get("rounds") or [], set(chosen[0]), untwinned)
    if doubt:
        return report, None
    return report, Finding(forged=forged, untrusted=tuple(test for test in chosen[0] if test in untwinned))


class _Talk:
    """A run that waits after its tests for rounds, seen from here."""

    def __init__(self, process: Process, key: bytes, exit_code: int, timeout_s: float) -> None:
        self._process, self._key, self._exit_code, self._timeout_s = process, key, exit_code, timeout_s
        self._said, self._started, self._late = b"", time.monotonic(), False

    @classmethod
    async def begin(cls, sandbox: Sandbox, run: TestRun, *, timeout_s: float) -> "_Talk":
        key, exit_code = secrets.token_bytes(32), 64 + secrets.randbelow(32)
        process = await sandbox.astart(_argv(run), cwd=run.workdir, env=_variables(run))
        process.write(
            _guest_program(run.runner.kind) + sized(_order(run, key, exit_code, {"rounds": None, "waits": True}))
        )
        return cls(process, key, exit_code, timeout_s)

    async def first(self) -> tuple[TestReport, Mapping[str, Any] | None]:
        """The tests' own report: of a process that waits now, or has ended."""
        await self._read(3, self._timeout_s)
        took = time.monotonic() - self._started
        if self._line(2, of=3).get("kind") == "waits":  # it has seen the fork end with the code agreed on
            told = self._said[: self._said.rindex(b"\n", 0, -1) + 1]
            result = ProcessResult(stdout=told, stderr=b"", exit_code=self._exit_code)
        else:
            result = await self.end()
        return _read(replace(result, duration_s=took), self._key, self._exit_code)

    def _line(self, place: int, *, of: int) -> Mapping[str, Any]:
        """A record that is signed; {} where there is none, or not exactly so many."""
        lines = self._said.split(b"\n")
        return (_verified(lines[place], self._key) or {}) if len(lines) == of + 1 and not lines[of] else {}

    async def ask(self, rounds: Mapping[str, Any], *, timeout_s: float) -> Mapping[str, Any] | None:
        """What the rounds gave; None where the process did not end as agreed, or said anything else."""
        self._process.write(sized(json.dumps(rounds).encode()))
        await self._read(4, timeout_s)
        result = await self.end()
        found = self._line(3, of=4)
        ended = not result.killed and result.exit_code == self._exit_code
        return found if ended and found.get("kind") == "again" else None

    async def end(self) -> ProcessResult:
        """Have it end where it waits; its outcome, with all that it said."""
        self._process.write(sized(b""))
        await self._read(None, END_S)
        if self._late:
            self._process.kill()
        result = await self._process.wait()
        return replace(result, stdout=self._said, killed="timeout" if self._late else result.killed)

    async def _read(self, lines: int | None, timeout_s: float) -> None:
        """Take what it says up to so many lines, or its end; late where that does not come in time."""
        if self._late:
            return
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                while lines is None or self._said.count(b"\n") < lines:
                    piece = await self._process.read()
                    if not piece:
                        return
                    self._said += piece
                    if len(self._said) > MOST_SAID:
                        self._process.kill()
        except TimeoutError:
            if not limit.expired():
                raise
            self._late = True


async def _execute(
    sandbox: Sandbox, run: TestRun, *, again: Mapping[str, Any] | None, timeout_s: float
) -> tuple[TestReport, Mapping[str, Any] | None]:
    """(report, what the guest said at its end; None where that cannot be believed)."""
    key, exit_code = secrets.token_bytes(32), 64 + secrets.randbelow(32)
    result = await sandbox.arun(
        _argv(run),
        cwd=run.workdir,
        env=_variables(run),
        stdin=_guest_program(run.runner.kind) + sized(_order(run, key, exit_code, again or {"rounds": None})),
        timeout_s=timeout_s,
    )
    return _read(result, key, exit_code)


def _argv(run: TestRun) -> list[str]:
    return [run.python, "-s", "-B", "-c", boot_line(_PACKAGE)]


def _variables(run: TestRun) -> dict[str, str]:
    """The environment of the interpreter itself."""
    variables = {name: value for name, value in run.env.items() if not name.startswith("PYTHON")}
    return {**variables, "PYTHONHASHSEED": run.env.get("PYTHONHASHSEED", "0")}


def _order(run: TestRun, key: bytes, exit_code: int, more: Mapping[str, Any]) -> bytes:
    order = {
        "key": key.hex(),
        "exit_code": exit_code,
        "tests": list(run.tests),
        "plugins": list(run.plugins),
        "distrusted": list(run.distrusted),
        "support": list(run.support),
        "sources_first": run.sources_first,
        "runner": asdict(run.runner),
        "pythonpath": [entry for entry in run.env.get("PYTHONPATH", "").split(":") if entry],
        "python_env": {name: value for name, value in run.env.items() if name.startswith("PYTHON")},
        "waits": False,
        **more,
    }
    return json.dumps(order).encode()


@lru_cache(maxsize=3)
def _guest_program(kind: str) -> bytes:
    # ``-c`` puts the working directory on the path, first of all.
    sources = {"path": "import sys\nsys.path[:] = [entry for entry in sys.path if entry]\n"}
    here = Path(__file__).parent
    names = [*_MODULES[:-1], *([_MORE_MODULES[kind]] if kind in _MORE_MODULES else []), _MODULES[-1]]
    sources |= {name: (here / f"{name}.py").read_text(encoding="utf-8") for name in names}
    return modules([(name, portable(name, source)) for name, source in sources.items()])


def _read(result: ProcessResult, key: bytes, exit_code: int) -> tuple[TestReport, Mapping[str, Any] | None]:
    """Judge what the guest sent: exactly "ready" and "done", both signed, and the exit code agreed on."""
    records = [_verified(line, key) for line in result.stdout.split(b"\n")[:-1]]
    if not records or records[0] is None or records[0].get("kind") != "ready":
        why = result.stderr.decode("utf-8", errors="replace").strip().splitlines() or ["no message"]
        raise GradingError(
            f"pytest could not be started (exit code {result.exit_code}, killed: {result.killed}): {why[-1][:500]}; "
            "see that the task's environment has it, or unittest's or SymPy's runner in its place"
        )

    def broken(detail: str) -> tuple[TestReport, None]:
        code = None if result.killed else result.exit_code
        report = TestReport(statuses={}, complete=False, exit_code=code, detail=detail, duration_s=result.duration_s)
        return report, None

    if result.killed:
        return broken(f"stopped: {result.killed}")
    if len(records) == 1:
        return broken(f"the process ended early, with exit code {result.exit_code}")
    done = records[1]
    if len(records) > 2 or done is None or done.get("kind") != "done" or not result.stdout.endswith(b"\n"):
        return broken("something else wrote to the results' channel")
    if result.exit_code != exit_code:
        return broken(f"the process ended with exit code {result.exit_code}, not with the one agreed on")
    report = TestReport(
        statuses=done["statuses"],
        complete=done["complete"],
        exit_code=done["exit_code"],
        canaries_ok=done["canaries_ok"],
        detail=readable(_detail(done), MOST_DETAIL),
        duration_s=result.duration_s,
        strange=tuple(done["strange"]),
        tracebacks=read_tracebacks(done.get("tracebacks")),
    )
    return report, done


def _verified(line: bytes, key: bytes) -> dict[str, Any] | None:
    signature, _, body = line.partition(b" ")
    expected = hmac.new(key, body, hashlib.sha256).hexdigest().encode()
    return json.loads(body) if hmac.compare_digest(signature, expected) else None


def _detail(done: Mapping[str, Any]) -> str:
    if done["problem"]:
        return done["problem"]
    if done["tampered"]:
        return f"{done['tampered']} was replaced while the tests ran"
    if not done["complete"]:
        return f"pytest ended with code {done['exit_code']} before every test had run"
    if not done["canaries_ok"]:
        return "a planted test had the wrong outcome"
    dropped = f" (base's {' '.join(done['dropped'])} not used)" if done["dropped"] else ""
    return next((f"{test}: {message}{dropped}" for test, message in done["messages"].items()), dropped.strip(" ()"))
