"""Evidence from tests: a run of pytest inside a sandbox, and the grading of a patch in a fresh one.

``testing_guest.py`` is the program that runs in the sandbox; docs/design/002-honest-grading.md says what it can
and cannot catch.
"""

import hashlib
import hmac
import json
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import GradingError
from ...rewards.swe import PASSING, TestReport
from ..sandbox.types import ProcessResult, Sandbox

MAX_TWINS = 12
"""Most PASS_TO_PASS tests that are run a second time as twins; FAIL_TO_PASS tests always are."""


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
    """

    __test__ = False

    workdir: str
    python: str
    tests: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    distrusted: tuple[str, ...] = ()


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
    report, _ = await _execute(sandbox, run, twins=(), timeout_s=timeout_s)
    return report


async def find_forgery(sandbox: Sandbox, run: TestRun, twins: Sequence[str], *, timeout_s: float) -> str | None:
    """Run tests that are said to pass once more as twins: the same tests in the same files, made to fail.

    Files are loaded as in ``run``; only the twins are run. The code under test cannot tell this from the real run
    without reading the tests, so what made them pass by other means than being right makes the twins pass too.

    Returns:
        What gives the forgery away, or None. Tests whose function cannot be found in their file have no twin.
    Raises:
        GradingError: the run was stopped by its deadline, or as ``run_tests``.
    """
    report, planted = await _execute(sandbox, run, twins=twins, timeout_s=timeout_s)
    if not planted:
        return None
    if not report.complete and report.exit_code is None and report.detail.startswith("stopped: timeout"):
        raise GradingError(f"the tests' twins took longer than {timeout_s:g} s, which the tests did not")
    if not report.complete or not report.canaries_ok:
        return f"a second run behaved differently: {report.detail}"
    alive = [test for test in planted if report.statuses.get(test) in PASSING]
    return f"{alive[0]} passed although it was made to fail" if alive else None


def choose_twins(report: TestReport, fail_to_pass: Sequence[str], pass_to_pass: Sequence[str]) -> tuple[str, ...]:
    """Passed tests to run as twins: all of FAIL_TO_PASS, and a sample of PASS_TO_PASS."""
    others = [test for test in pass_to_pass if report.statuses.get(test) == "passed"]
    others = random.SystemRandom().sample(others, min(len(others), MAX_TWINS))
    return (*(test for test in fail_to_pass if report.statuses.get(test) == "passed"), *others)


async def _execute(
    sandbox: Sandbox, run: TestRun, *, twins: Sequence[str], timeout_s: float
) -> tuple[TestReport, tuple[str, ...]]:
    """(report, the twins that were planted)."""
    key = secrets.token_bytes(32)
    exit_code = 64 + secrets.randbelow(32)
    variables = {name: value for name, value in run.env.items() if not name.startswith("PYTHON")}
    variables["PYTHONHASHSEED"] = run.env.get("PYTHONHASHSEED", "0")
    order = {
        "key": key.hex(),
        "exit_code": exit_code,
        "tests": list(run.tests),
        "twins": list(twins),
        "plugins": list(run.plugins),
        "distrusted": list(run.distrusted),
        "pythonpath": [entry for entry in run.env.get("PYTHONPATH", "").split(":") if entry],
        "python_env": {name: value for name, value in run.env.items() if name.startswith("PYTHON")},
    }
    result = await sandbox.arun(
        [run.python, "-s", "-B", "-c", _guest_program()],
        cwd=run.workdir,
        env=variables,
        stdin=json.dumps(order).encode(),
        timeout_s=timeout_s,
    )
    return _read(result, key, exit_code)


@lru_cache(maxsize=1)
def _guest_program() -> str:
    return Path(__file__).with_name("testing_guest.py").read_text(encoding="utf-8")


def _read(result: ProcessResult, key: bytes, exit_code: int) -> tuple[TestReport, tuple[str, ...]]:
    """Judge what the guest sent: exactly "ready" and "done", both signed, and the exit code agreed on."""
    records = [_verified(line, key) for line in result.stdout.split(b"\n")[:-1]]
    if not records or records[0] is None or records[0].get("kind") != "ready":
        why = result.stderr.decode("utf-8", errors="replace").strip().splitlines() or ["no message"]
        raise GradingError(
            f"pytest could not be started (exit code {result.exit_code}, killed: {result.killed}): {why[-1][:500]}; "
            "see that the task's environment has pytest"
        )

    def broken(detail: str) -> tuple[TestReport, tuple[str, ...]]:
        code = None if result.killed else result.exit_code
        report = TestReport(statuses={}, complete=False, exit_code=code, detail=detail, duration_s=result.duration_s)
        return report, ()

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
        detail=_detail(done),
        duration_s=result.duration_s,
    )
    return report, tuple(done["planted"])


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
    return next((f"{test}: {message}" for test, message in done["messages"].items()), "")
