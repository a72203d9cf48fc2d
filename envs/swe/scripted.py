"""Grading by a row's own script, for tests that pytest does not run: Django's, SymPy's, tox, and published images.

The evidence is text that the code under test can write, so it is believed less: markers and the exit code carry a
random word of this run, the log must account for every failure (``rewards/logs``), the hidden files are the same
after the tests, and what passes is run again in a second sandbox, half the time as twins (``script_twins.py``).
"""

import secrets
import shlex
from collections.abc import Awaitable, Callable, Sequence

from ...errors import GradingError
from ...model.chat.encoding import to_bytes
from ...rewards.score import Score
from ...rewards.swe import TestReport
from ..datasets.eval_scripts import CODE, END, START
from ..datasets.swe import SWERow
from ..sandbox.types import Limits, Sandbox, SandboxBackend
from .checkout import checkout, checkout_ahead
from .judging import default_judge
from .patching import Applied
from .script_twins import ScriptTwins, test_files
from .trust import Untrusted, believed

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

        async def again(script: str) -> TestReport:
            _, found = await run_script_once(sandbox, row, script, timeout_s)
            return found

        return believed(score, await twins.find_forgery(again), untrusted), report


async def run_script_once(sandbox: Sandbox, row: SWERow, script: str, timeout_s: float) -> tuple[Score, TestReport]:
    """One run of a script of the form of ``eval_script``: what its log says."""
    word = secrets.token_hex(8)
    path = f"/tmp/{word}.sh"
    await sandbox.write_file(path, to_bytes(_marked(script, word, test_files(row), row.root)))
    result = await sandbox.arun(
        ["bash", "-c", f"exec bash {path} 2>&1"], cwd=row.root, env=row.env, timeout_s=timeout_s
    )
    text = result.stdout.decode("utf-8", errors="replace")

    def stopped(detail: str) -> tuple[Score, TestReport]:
        report = TestReport(statuses={}, complete=False, exit_code=None, detail=detail, duration_s=result.duration_s)
        return _zero(report.detail), report

    if result.killed:
        return stopped(f"stopped: {result.killed}")
    sums = [line.partition(" ")[2] for line in text.splitlines() if line.startswith(f"{word}-sum ")]
    if len(sums) > 1 and len(set(sums)) > 1:
        return stopped("a hidden test file was rewritten while the tests ran")
    # A marker without the word was printed by something else.
    for mark in (START, END, CODE):
        text = text.replace(mark, f"(printed by a test: {mark.strip('> ')})").replace(
            f"{word} {mark.strip('> ')}", mark
        )
    if CODE not in text:
        text += "\n>>>>> Tests Errored"
    verdict = await default_judge().judge(
        text,
        parser=row.parser,
        fail_to_pass=row.FAIL_TO_PASS,
        pass_to_pass=row.PASS_TO_PASS,
        eval_type=row.eval_type,
    )
    return verdict.score, verdict.report


def _marked(script: str, word: str, files: Sequence[str], root: str) -> str:
    """The script with markers of this run, which removes itself, notes the code of the command between them, and what
    the hidden files hold before and after it."""
    lines = [f'rm -f -- "$0"  # {word}']
    named = " ".join(shlex.quote(path) for path in files)
    summed = f'echo "{word}-sum $(cd {shlex.quote(root)} && cat -- {named} 2>/dev/null | sha256sum)" 2>/dev/null'
    for line in script.splitlines():
        if CODE in line:
            continue
        if END in line:
            lines.append("VERIGYM_EXIT_CODE=$?")
        if START in line and files:
            lines.append(summed)
        lines.append(line)
        if END in line:
            lines.append(f"echo '{word} {CODE.strip('> ')}:' \"${{SWEBENCH_TEST_EXIT_CODE:-$VERIGYM_EXIT_CODE}}\"")
            lines += [summed] if files else []
    text = "\n".join(lines) + "\n"
    for mark in (START, END):
        text = text.replace(mark, f"{word} {mark.strip('> ')}")
    return text


def _zero(detail: str) -> Score:
    parts = {"fail_to_pass": 0.0, "pass_to_pass": 0.0, "resolved": 0.0}
    return Score(value=0.0, passed=False, breakdown=parts, detail=detail)
