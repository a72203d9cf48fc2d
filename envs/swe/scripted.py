"""Grading by a row's own script, for commands that no runner of ours stands in for: pytest's own tests, a shell script.

The script runs up to its first marker; its command is then a process of its own, with what the script had exported, so
that what it prints and its exit code come by ways that nothing it runs can read ahead or write to afterwards. What it
prints is still text that the code under test can write, and is believed less: the log must account for every failure
(``rewards/logs``), the hidden files are the same after the tests, and what passes is run again in a second sandbox,
half the time as twins (``script_twins.py``).
"""

import re
import secrets
import shlex
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from ...errors import GradingError
from ...model.chat.encoding import from_bytes, to_bytes
from ...rewards.score import Score
from ...rewards.swe import PASSING, TestReport
from ..datasets.eval_scripts import CODE, END, START
from ..datasets.swe import SWERow
from ..sandbox.types import Limits, ProcessResult, Sandbox, SandboxBackend
from .checkout import checkout, checkout_ahead
from .judging import default_judge
from .patching import Applied
from .script_twins import ScriptTwins, test_files
from .tracebacks import logged_tracebacks
from .trust import Untrusted, believed
from .worktree import run_script

_TOLD_BY = "SWEBENCH_TEST_EXIT_CODE="
_INSTALLS = re.compile(r"^python -m pip install .*$", re.MULTILINE)

Prepare = Callable[[Sandbox, SWERow, str], Awaitable[tuple[str | None, Applied]]]


async def grade_by_script(
    backend: SandboxBackend,
    row: SWERow,
    patch: str,
    *,
    prepare: Prepare,
    timeout_s: float,
    limits: Limits,
    untrusted: Untrusted = "fail",
) -> tuple[Score, TestReport]:
    """Grade a patch with the row's ``eval_script``.

    Args:
        prepare: patches a fresh checkout, and takes back what steers the tests.
        untrusted: as for ``grade_patch``.
    Raises:
        GradingError: the script does not have SWE-bench's markers. SandboxError: the sandbox failed.
    """
    if row.eval_script.count(START) != 1 or row.eval_script.count(END) != 1:
        raise GradingError(f"{row.instance_id}: eval_script does not have each of the markers {START!r}, {END!r} once")
    async with checkout_ahead(backend, row, limits=limits) as second, checkout(backend, row, limits=limits) as first:
        problem, _ = await prepare(first, row, patch)
        if problem is not None:
            detail = f"the patch does not apply: {problem}"
            return _zero(detail), TestReport(statuses={}, complete=False, exit_code=None, detail=detail)
        score, report = await run_script_once(first, row, row.eval_script, timeout_s)
        if not score.passed:
            return score, report
        await first.aclose()
        sandbox = await second()
        await prepare(sandbox, row, patch)
        twins = await ScriptTwins.make(sandbox, row, report)
        runs = 0

        async def again(script: str) -> TestReport:
            nonlocal runs
            runs += 1
            if runs > 1:  # what was installed lies there
                script = _INSTALLS.sub(":", script)
            _, found = await run_script_once(sandbox, row, script, timeout_s)
            return found

        return believed(score, await twins.find_forgery(again), untrusted), report


async def run_script_once(sandbox: Sandbox, row: SWERow, script: str, timeout_s: float) -> tuple[Score, TestReport]:
    """One run of a script of the form of ``eval_script``: what its log says."""
    before, _, rest = script.partition(START)
    before, after = before.rpartition("\n")[0], rest.partition("\n")[2]
    lines = [line for line in after.partition(END)[0].splitlines()[:-1] if not line.startswith(_TOLD_BY)]

    def stopped(result: ProcessResult, detail: str) -> tuple[Score, TestReport]:
        report = TestReport(statuses={}, complete=False, exit_code=None, detail=detail, duration_s=result.duration_s)
        return _zero(report.detail), report

    place, env, result = await _prelude(sandbox, row, before, timeout_s)
    if result.killed:
        return stopped(result, f"stopped: {result.killed}")
    sums = await _sum_of(sandbox, row)
    strict = ["set -o pipefail"] if "pipefail" in before else []
    command = "\n".join([*strict, "exec 2>&1", f"cd {shlex.quote(place)} || exit", *lines])
    result = await sandbox.arun(["bash", "-c", command], cwd=row.root, env=env, timeout_s=timeout_s)
    if result.killed:
        return stopped(result, f"stopped: {result.killed}")
    if await _sum_of(sandbox, row) != sums:
        return stopped(result, "a hidden test file was rewritten while the tests ran")
    text = result.stdout.decode("utf-8", errors="replace")
    for mark in (START, END, CODE):
        text = text.replace(mark, f"(printed by a test: {mark.strip('> ')})")
    verdict = await default_judge().judge(
        f"{START}\n{text}\n{END}\n{CODE}: {result.exit_code}\n",
        parser=row.parser,
        fail_to_pass=row.FAIL_TO_PASS,
        pass_to_pass=row.PASS_TO_PASS,
        eval_type=row.eval_type,
    )
    failed = [test for test, status in verdict.report.statuses.items() if status not in PASSING]
    told = logged_tracebacks(text, failed)
    return verdict.score, replace(verdict.report, duration_s=result.duration_s, tracebacks=told)


async def _prelude(
    sandbox: Sandbox, row: SWERow, script: str, timeout_s: float
) -> tuple[str, Mapping[str, str], ProcessResult]:
    """Run what stands before the command: (the folder it leaves, what it has exported, its outcome)."""
    word = secrets.token_hex(8)
    path = f"/tmp/{word}.sh"
    told = f"{{ set +xu; }} 2>/dev/null\nprintf '\\0%s\\0%s\\0' {word} \"$PWD\"; env -0"
    await sandbox.write_file(path, to_bytes(f'rm -f -- "$0"\n{script}\n{told}\n'))
    result = await sandbox.arun(["bash", path], cwd=row.root, env=row.env, timeout_s=timeout_s)
    place, *variables = from_bytes(result.stdout).rpartition(f"\0{word}\0")[2].split("\0")
    env = dict(pair.split("=", 1) for pair in variables if "=" in pair)
    return place or row.root, env or row.env, result


async def _sum_of(sandbox: Sandbox, row: SWERow) -> str:
    """A checksum of what the hidden files hold."""
    named = " ".join(map(shlex.quote, test_files(row)))
    result = await run_script(sandbox, f"cat -- {named} 2>/dev/null | sha256sum" if named else ":", root=row.root)
    return from_bytes(result.stdout)


def _zero(detail: str) -> Score:
    parts = {"fail_to_pass": 0.0, "pass_to_pass": 0.0, "resolved": 0.0}
    return Score(value=0.0, passed=False, breakdown=parts, detail=detail)
