"""What existing and generated tests say of a patch: each trial in a fresh sandbox, from base and the patch alone."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from ...envs.datasets.swe import SWERow, row_of
from ...envs.sandbox.types import Limits, Sandbox, SandboxBackend
from ...envs.swe.checkout import checkout, environment_of, placed
from ...envs.swe.grading import TEST_NAME, is_test_path, steers_tests
from ...envs.swe.patching import apply_patch, take_back
from ...envs.swe.testing import TestRun, execute
from ...envs.swe.worktree import run_script
from ...envs.task import Task
from ...model.chat.encoding import from_bytes, to_bytes
from ...rewards.swe import PASSING
from .select import Candidate, majority_tests, normal_test

GENERATED = "test_verigym_generated_{}.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """The trials of one task.

    Attributes:
        candidates: with what they pass.
        num_existing: tests of the repository that pass at base.
        num_generated: tests that were kept, of those generated.
    """

    candidates: tuple[Candidate, ...]
    num_existing: int
    num_generated: int


class Trial:
    """Runs tests of one task. ``workers`` bounds its sandboxes at once."""

    def __init__(self, backend: SandboxBackend, task: Task, *, timeout_s: float = 600.0, workers: int = 2) -> None:
        self._backend, self._row, self._timeout_s = backend, placed(row_of(task), backend), timeout_s
        self._slots = asyncio.Semaphore(workers)

    async def run(self, candidates: Sequence[Candidate], tests: Sequence[str]) -> Trials:
        """Try every candidate on the repository's tests that pass at base, and on the generated tests of the majority
        that fail there.

        Raises:
            SandboxError, GradingError: the infrastructure failed.
        """
        existing = await self.existing("")
        written = list(dict.fromkeys(test for test in tests if normal_test(test) is not None))
        at_base = await asyncio.gather(*(self.generated("", test) for test in written))
        shows_issue = {test: not passed for test, passed in zip(written, at_base, strict=True)}
        chosen = majority_tests(tests, lambda test: shows_issue[test])
        patches = list(dict.fromkeys(candidate.patch for candidate in candidates))
        found = await asyncio.gather(*(self._passed(patch, existing, chosen) for patch in patches))
        passed = dict(zip(patches, found, strict=True))
        return Trials(
            candidates=tuple(
                Candidate(patch=one.patch, num_tokens=one.num_tokens, passed=passed[one.patch]) for one in candidates
            ),
            num_existing=len(existing),
            num_generated=len(chosen),
        )

    async def existing(self, patch: str) -> frozenset[str]:
        """Tests of the repository at base that pass with a patch; none where it does not apply or the run breaks."""
        async with self._slots, checkout(self._backend, self._row, limits=Limits()) as sandbox:
            files = await _test_files(sandbox, self._row.root)
            if not files or not await self._prepare(sandbox, patch):
                return frozenset()
            return await self._statuses(sandbox, files)

    async def generated(self, patch: str, test: str) -> bool:
        """Whether every test of a generated file passes with a patch, and there is one."""
        async with self._slots, checkout(self._backend, self._row, limits=Limits()) as sandbox:
            if not await self._prepare(sandbox, patch):
                return False
            name = GENERATED.format("0")
            await sandbox.write_file(f"{self._row.root}/{name}", to_bytes(test))
            report = await execute(sandbox, await self._test_run((name,)), timeout_s=self._timeout_s)
            statuses = report.statuses.values()
            return report.complete and bool(statuses) and all(status in PASSING for status in statuses)

    async def _passed(self, patch: str, existing: frozenset[str], chosen: Sequence[str]) -> frozenset[str]:
        now = await self.existing(patch) if patch.strip() else existing
        passes = await asyncio.gather(*(self.generated(patch, test) for test in chosen))
        names = {GENERATED.format(number) for number, passed in enumerate(passes) if passed}
        return frozenset((now & existing) | names)

    async def _prepare(self, sandbox: Sandbox, patch: str) -> bool:
        """Apply a patch and put back what steers tests; False where it does not apply."""
        if not patch.strip():
            return True
        problem, applied = await apply_patch(sandbox, patch, root=self._row.root)
        if problem is not None:
            return False
        steering = frozenset(path for path in (*applied.changed, *applied.added) if steers_tests(path))
        await take_back(sandbox, applied, steering, root=self._row.root)
        return True

    async def _statuses(self, sandbox: Sandbox, files: Sequence[str]) -> frozenset[str]:
        report = await execute(sandbox, await self._test_run(tuple(files)), timeout_s=self._timeout_s)
        if not report.complete or not report.canaries_ok:
            return frozenset()
        return frozenset(test for test, status in report.statuses.items() if status in PASSING)

    async def _test_run(self, tests: tuple[str, ...]) -> TestRun:
        row: SWERow = self._row
        return TestRun(
            workdir=row.root,
            python=(await environment_of(row)).python,
            tests=tests,
            env=row.env,
            plugins=row.pytest_plugins,
        )


async def _test_files(sandbox: Sandbox, root: str) -> list[str]:
    listed = await run_script(sandbox, "git ls-files -z", root=root)
    paths = from_bytes(listed.stdout).split("\0")
    return sorted(p for p in paths if is_test_path(p) and TEST_NAME.fullmatch(PurePosixPath(p).name))
