"""Grading a patch: hidden tests in a fresh sandbox, from the repository's base and the patch alone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from ...errors import GradingError, SandboxError, TaskError
from ...model.chat.encoding import to_bytes
from ...rewards.patches import paths_of
from ...rewards.score import Score
from ...rewards.swe import TestReport, found_ids, grade_tests
from ..datasets.swe import SWERow, require_tests, row_of
from ..sandbox.types import Limits, Sandbox, SandboxBackend
from ..task import Task
from .checkout import checkout, environment_of, placed
from .commands import command_of
from .patching import Applied, apply_patch, apply_plainly, take_back
from .prepared import is_clean
from .published import Plan, plan_of
from .rounds import choose_twins
from .script_twins import test_files
from .scripted import grade_by_script
from .testing import TestRun, execute, execute_and_doubt, find_forgery
from .trust import Untrusted, believed
from .worktree import run_script, said_by

TEST_TIMEOUT_S = 1_800.0
"""Wall-clock seconds of one run of a task's tests, as in SWE-bench's harness."""
STOPPED = "stopped: timeout"
"""What a report says of tests that met their time limit."""

TEST_FOLDERS = frozenset({"test", "tests", "testing", "e2e"})
STEERING_NAMES = frozenset(
    {"conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "setup.cfg"}
    | {".gitattributes", "pyproject.toml", "sitecustomize.py", "usercustomize.py", "tests.py"}
)
TEST_NAME = re.compile(r"test_.*\.py|.*_test\.py")
COMPILED = re.compile(r".*\.(pyc|pyo|pth)")


def is_test_path(path: str) -> bool:
    """Whether a path belongs to the tests by SWE-bench's own division: such a path is no place for a solution."""
    parts = PurePosixPath(path)
    in_folder = any(part.lower() in TEST_FOLDERS for part in parts.parts[:-1])
    return in_folder or parts.name in TEST_FOLDERS or TEST_NAME.fullmatch(parts.name) is not None


def is_configuration(path: str) -> bool:
    """Whether pytest or the interpreter would take orders from a file of this name."""
    parts = PurePosixPath(path)
    return parts.name in STEERING_NAMES or COMPILED.fullmatch(parts.name) is not None or "__pycache__" in parts.parts


def steers_tests(path: str, row: SWERow | None = None) -> bool:
    """Whether a patch under test may not touch a path: tests, their configuration, and the row's test files.

    A row's gold patch shows which paths under a folder named "test" are sources after all.
    """
    if is_configuration(path) or (row is not None and path in _paths_of(row.test_patch)):
        return True
    return is_test_path(path) and (row is None or path not in _paths_of(row.patch))


def _paths_of(patch: str) -> set[str]:
    """Paths a patch names."""
    return {path for pair in paths_of(patch) for path in pair if path}


async def grade_patch(
    backend: SandboxBackend,
    task: Task,
    patch: str,
    *,
    timeout_s: float = TEST_TIMEOUT_S,
    limits: Limits | None = None,
    untrusted: Untrusted = "fail",
) -> tuple[Score, TestReport]:
    """Grade a patch of a "swe" task: by verigym's runners, which stand in for the command of a published row's
    ``eval_script`` too where they know it (``published.py``); else by that script (``scripted.py``).

    Everything that steers tests comes from the base commit and the row, never from the patch. Tests that pass are
    believed only if their twins, run in another fresh sandbox, fail (``testing.find_forgery``).

    Args:
        patch: as ``git diff`` writes it; "" is the base itself.
        timeout_s: wall-clock seconds of one run of the tests.
        untrusted: what it is worth that all tests pass and some that decide have no twin (``trust.believed``).
    Returns:
        (score, evidence). A patch that does not apply scores 0, and so do tests that meet their time limit, with an
        ending of their own.
    Raises:
        TaskError: the row cannot be graded: no tests, no repository for this backend, or tests that are no pytest
            ids and no script to run them.
        GradingError: the evidence could not be gathered. SandboxError: the sandbox failed.
    """
    row = placed(row_of(task), backend)
    require_tests(row)
    score, report = await _graded(
        backend, row, patch, timeout_s=timeout_s, limits=limits or Limits(), untrusted=untrusted
    )
    if report.detail == STOPPED:
        told = f"the tests took longer than {timeout_s:g} s"
        score = replace(score, detail=told, ending="test_timeout")
    return score, report


async def _graded(
    backend: SandboxBackend, row: SWERow, patch: str, *, timeout_s: float, limits: Limits, untrusted: Untrusted
) -> tuple[Score, TestReport]:
    odd = any(not test.partition("::")[0].endswith(".py") for test in row.tests)
    by_script = bool(row.eval_script and not row.interpreter and (row.image or odd))
    settings: Any = {"prepare": patch_sources, "timeout_s": timeout_s, "limits": limits, "untrusted": untrusted}
    if by_script and command_of(row) is None:
        return await grade_by_script(backend, row, patch, **settings)
    # Our runners install nothing, so nothing asks git for a version.
    opened = {"limits": limits, "with_past": not by_script}
    async with checkout(backend, row, **opened) as first:
        plan = await plan_of(first, row) if by_script else None
        if by_script and plan is None:
            await first.aclose()
            return await grade_by_script(backend, row, patch, **settings)
        problem, run = await _prepare(first, row, patch, plan)
        if problem is not None:
            return _rejected(f"the patch does not apply: {problem}")
        names = Names(row, plan)
        report, finding = await execute_and_doubt(first, run, names.choose, timeout_s=timeout_s)
    told = names.told(report)
    score = grade_tests(told, *names.ids(told))
    if not score.passed:
        return score, told
    if finding is None:
        async with checkout(backend, row, **opened) as second:
            _, run = await _prepare(second, row, patch, plan)
            limit_s = 10.0 + 5.0 * report.duration_s
            chosen = names.choose(report) or ((), ())
            finding = await find_forgery(second, run, *chosen, limit_s=limit_s, timeout_s=timeout_s)
    return believed(score, finding, untrusted), told


class Names:
    """A row's tests among those of a run."""

    def __init__(self, row: SWERow, plan: Plan | None) -> None:
        self._row, self._plan = row, plan

    def told(self, report: TestReport) -> TestReport:
        """The report by the names that the row has."""
        return report if self._plan is None else self._plan.renamed(report)[0]

    def ids(self, told: TestReport) -> tuple[Sequence[str], Sequence[str]]:
        return found_ids(told.statuses, self._row.FAIL_TO_PASS), found_ids(told.statuses, self._row.PASS_TO_PASS)

    def choose(self, report: TestReport) -> tuple[Sequence[str], Sequence[str]] | None:
        """The tests of a run that are run again, by the names that the runner has; None where some have failed."""
        told, names = (report, {}) if self._plan is None else self._plan.renamed(report)
        if not grade_tests(told, *self.ids(told)).passed:
            return None
        deciding, others = choose_twins(told, *self.ids(told))
        return tuple(_own(deciding, names)), tuple(_own(others, names))


def _own(tests: Sequence[str], names: Mapping[str, Sequence[str]]) -> list[str]:
    return [own for test in tests for own in names.get(test, [test])]


async def run_hidden_tests(
    backend: SandboxBackend, row: SWERow, patch: str, *, timeout_s: float, limits: Limits
) -> tuple[str | None, TestReport]:
    """One run of a placed row's tests by verigym's runner, in a fresh sandbox with the patch.

    Returns:
        (None, or why the patch does not apply; the report, which holds every test of the files that the row names).
    Raises: as ``grade_patch``.
    """
    async with checkout(backend, row, limits=limits) as sandbox:
        problem, run = await _prepare(sandbox, row, patch)
        if problem is not None:
            return problem, TestReport(statuses={}, complete=False, exit_code=None, detail=problem)
        return None, await execute(sandbox, run, timeout_s=timeout_s)


async def patch_sources(sandbox: Sandbox, row: SWERow, patch: str) -> tuple[str | None, Applied]:
    """Patch a fresh checkout and take back what steers the tests: (why the patch does not apply, what it changed)."""
    problem, applied = await apply_patch(sandbox, patch, root=row.root)
    if problem is None:
        steering = frozenset(path for path in (*applied.changed, *applied.added) if steers_tests(path, row))
        await take_back(sandbox, applied, steering, root=row.root)
    return problem, applied


async def _prepare(sandbox: Sandbox, row: SWERow, patch: str, plan: Plan | None = None) -> tuple[str | None, TestRun]:
    """Patch, restore what steers the tests, add the hidden tests: (why the patch does not apply, what to run)."""
    files = tuple(sorted({test.partition("::")[0] for test in row.tests}))
    odd = [path for path in files if plan is None and not path.endswith(".py")]
    if odd:
        raise TaskError(
            f"{row.instance_id}: {odd[0]!r} is no pytest id, and the row has no eval_script to run its tests with; "
            "take the row from SWE-bench 5's file"
        )
    plain = None
    if is_clean(row, "grading"):
        plain = await apply_plainly(
            sandbox, patch, row.test_patch, lambda path: bool(path) and steers_tests(path, row), root=row.root
        )
    problem, applied = (None, plain) if plain is not None else await patch_sources(sandbox, row, patch)
    distrusted = tuple(path for path in applied.added if not steers_tests(path, row))
    if plan is not None:
        run = plan.run(distrusted=distrusted, hidden=test_files(row))
    else:
        run = TestRun(
            workdir=row.root,
            python=(await environment_of(row)).python,
            tests=row.tests if row.test_share else files,
            env=row.env,
            plugins=row.pytest_plugins,
            distrusted=distrusted,
        )
    if plain is None and problem is None and row.test_patch.strip():
        script = "git apply --whitespace=nowarn -"
        stdin = to_bytes(row.test_patch)
        result = await run_script(sandbox, script, root=row.root, stdin=stdin)
        if result.exit_code != 0:
            said = result.stderr.decode("utf-8", errors="replace").strip()
            if not await _applies_without(sandbox, row, applied):
                raise GradingError(f"{row.instance_id}: test_patch does not apply to the base commit: {said[:500]}")
            return f"it leaves no room for the hidden tests: {said[:300]}", run
    return problem, run


async def _applies_without(sandbox: Sandbox, row: SWERow, applied: Applied) -> bool:
    """Whether the hidden tests' patch, which did not apply, does so where a patch under test has left nothing; if not
    the row is broken, and nobody's patch is to blame."""
    if not applied.base:
        return False
    await take_back(sandbox, applied, frozenset((*applied.changed, *applied.added)), root=row.root)
    # git may have written some of it.
    made = b"".join(to_bytes(f"./{new}") + b"\0" for old, new in paths_of(row.test_patch) if new and not old)
    script = f"""
        xargs -0 -r rm -rf -- && aside=$(mktemp -d) && trap 'rm -rf "$aside"' EXIT || exit
        export GIT_INDEX_FILE="$aside/index"
        git read-tree {applied.base} && git checkout-index --force --all --quiet
    """
    restored = await run_script(sandbox, script, root=row.root, stdin=made)
    if restored.exit_code != 0:
        raise SandboxError(f"the base commit could not be restored: {said_by(restored)}")
    script = "git apply --whitespace=nowarn -"
    return (await run_script(sandbox, script, root=row.root, stdin=to_bytes(row.test_patch))).exit_code == 0


def _rejected(detail: str) -> tuple[Score, TestReport]:
    return zero(detail), TestReport(statuses={}, complete=False, exit_code=None, detail=detail)


def zero(detail: str) -> Score:
    """The score of a submission whose tests were not run, or not believed."""
    parts = {"fail_to_pass": 0.0, "pass_to_pass": 0.0, "resolved": 0.0}
    return Score(value=0.0, passed=False, breakdown=parts, detail=detail)
