"""Evidence from tests: a run of pytest inside a sandbox, and the same tests once more as twins.

``testing_guest.py`` and its modules are the program that runs in the sandbox; docs/design/002-honest-grading.md says
what it can and cannot catch.
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
from ..sandbox.boot import boot_line, modules
from ..sandbox.types import ProcessResult, Sandbox

ROUNDS = 10
"""Runs of the tests that decide, half of them twins: a test that is forged by chance, by a count, or in any other way
that does not know the twins is caught but for one choice in 252 (10 over 5)."""

MOST_IN_ALL = 48
"""Most tests that take part in every round; of further ones each is run twice, once as a twin."""

MAX_OTHERS = 12
"""Most PASS_TO_PASS tests that are run again."""

_PACKAGE = "_verigym_runner"
_MODULES = (
    "twin_means",
    "twin_operands",
    "twins",
    "testing_options",
    "testing_builtins",
    "testing_pristine",
    "testing_recorder",
    "testing_rounds",
    "testing_guest",
)


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
    report, _ = await _execute(sandbox, run, again=None, timeout_s=timeout_s)
    return report


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What running tests again as twins has shown.

    Attributes:
        forged: what gives a forgery away; "" where nothing does.
        untrusted: tests that passed and of which no twin could be made, so that nothing speaks for them.
    """

    forged: str = ""
    untrusted: tuple[str, ...] = ()


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
        plans = plan_rounds(deciding, others)
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


def plan_rounds(deciding: Sequence[str], others: Sequence[str]) -> list[dict[str, int]]:
    """What each round runs: test id -> 0 as it is, or the number of its twin; consecutive twins differ."""
    dice = random.SystemRandom()
    plans: list[dict[str, int]] = [{} for _ in range(ROUNDS)]
    often = set(dice.sample(list(deciding), min(len(deciding), MOST_IN_ALL)))
    for test in (*deciding, *others):
        places = dice.sample(range(ROUNDS), ROUNDS if test in often else 2)
        first = dice.randrange(1, 1 << 20)
        for n, place in enumerate(places):
            plans[place][test] = first + n // 2 if n % 2 else 0
    return plans


def judge_rounds(
    plans: Sequence[Mapping[str, int]],
    outcomes: Sequence[Mapping[str, Any]],
    deciding: set[str],
    untwinned: set[str],
) -> tuple[str, str]:
    """(what gives a forgery away, why the tests cannot be said to pass again); "" for neither."""
    trouble = "" if len(outcomes) == len(plans) else "a round is missing"
    for plan, found in zip(plans, outcomes, strict=False):
        statuses = found.get("statuses", {})
        if found.get("tampered"):
            return f"{found['tampered']} was replaced while the tests ran again", ""
        if found and found.get("finished") and not found.get("canaries_ok"):
            return "a planted test had the wrong outcome when the tests ran again", ""
        for test, number in plan.items():
            if test in untwinned:
                continue
            status = statuses.get(test)
            if number and status in PASSING:
                return f"{test} passed although it was made to fail", ""
            if status is None and test in deciding:
                trouble = trouble or f"{test} passed, and did not run to its end when it was run again"
            elif not number and status not in PASSING and test in deciding:
                trouble = trouble or f"{test} passed, and did not when it was run again"
        if not found.get("finished"):
            trouble = trouble or "the tests passed, and did not run to their end when they were run again"
    return "", trouble


def choose_twins(
    report: TestReport, fail_to_pass: Sequence[str], pass_to_pass: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Passed tests that are run again: (all of FAIL_TO_PASS, a sample of PASS_TO_PASS); where only the latter are
    named they decide."""
    dice = random.SystemRandom()
    first = tuple(test for test in dict.fromkeys(fail_to_pass) if report.statuses.get(test) == "passed")
    others = [test for test in dict.fromkeys(pass_to_pass) if report.statuses.get(test) == "passed"]
    # A test whose code is of no test file has no twin; one that has is worth more here.
    others = [test for test in others if test not in report.strange] or others
    chosen = tuple(dice.sample(others, min(len(others), MAX_OTHERS)))
    return (first, chosen) if first else (chosen, ())


async def _execute(
    sandbox: Sandbox, run: TestRun, *, again: Mapping[str, Any] | None, timeout_s: float
) -> tuple[TestReport, Mapping[str, Any] | None]:
    """(report, what the guest said at its end; None where that cannot be believed)."""
    key = secrets.token_bytes(32)
    exit_code = 64 + secrets.randbelow(32)
    variables = {name: value for name, value in run.env.items() if not name.startswith("PYTHON")}
    variables["PYTHONHASHSEED"] = run.env.get("PYTHONHASHSEED", "0")
    order = {
        "key": key.hex(),
        "exit_code": exit_code,
        "tests": list(run.tests),
        "plugins": list(run.plugins),
        "distrusted": list(run.distrusted),
        "pythonpath": [entry for entry in run.env.get("PYTHONPATH", "").split(":") if entry],
        "python_env": {name: value for name, value in run.env.items() if name.startswith("PYTHON")},
        **(again or {"rounds": None}),
    }
    result = await sandbox.arun(
        [run.python, "-s", "-B", "-c", boot_line(_PACKAGE)],
        cwd=run.workdir,
        env=variables,
        stdin=_guest_program() + json.dumps(order).encode(),
        timeout_s=timeout_s,
    )
    return _read(result, key, exit_code)


@lru_cache(maxsize=1)
def _guest_program() -> bytes:
    # ``-c`` puts the working directory on the path, first of all.
    path = ("path", "import sys\nsys.path[:] = [entry for entry in sys.path if entry]\n")
    here = Path(__file__).parent
    return modules([path, *((name, (here / f"{name}.py").read_text(encoding="utf-8")) for name in _MODULES)])


def _read(result: ProcessResult, key: bytes, exit_code: int) -> tuple[TestReport, Mapping[str, Any] | None]:
    """Judge what the guest sent: exactly "ready" and "done", both signed, and the exit code agreed on."""
    records = [_verified(line, key) for line in result.stdout.split(b"\n")[:-1]]
    if not records or records[0] is None or records[0].get("kind") != "ready":
        why = result.stderr.decode("utf-8", errors="replace").strip().splitlines() or ["no message"]
        raise GradingError(
            f"pytest could not be started (exit code {result.exit_code}, killed: {result.killed}): {why[-1][:500]}; "
            "see that the task's environment has pytest"
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
        detail=_detail(done),
        duration_s=result.duration_s,
        strange=tuple(done["strange"]),
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
