"""Tasks from a git history: commits that mend a bug and bring the tests that show it."""

import asyncio
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import GradingError, TaskError
from ...rewards.swe import PASSING, TestReport
from ..datasets.eval_scripts import shell_words
from ..datasets.repository import archive_of_commit, run_git
from ..datasets.swe import parse_row
from ..sandbox.background import on_thread
from ..sandbox.types import Limits, SandboxBackend
from ..swe.checkout import placed
from ..swe.grading import grade_patch, is_configuration, is_test_path, run_hidden_tests
from ..task import Task, write_jsonl
from .fetching import unpack
from .needs import needed_by_tests
from .requirements import declared_requirements, pinned_requirements
from .rows import archives_of
from .sources import is_collected

BUG_WORDS = re.compile(
    r"\b(fix(es|ed)?|bugs?|issues?|regressions?|crash(es)?|errors?|wrong|incorrect|broken|closes?|resolves?)\b|#\d+",
    re.I,
)
TRAILERS = re.compile(
    r"^(signed-off-by|co-authored-by|reviewed-by|change-id|cherry picked|git-svn-id)\b.*$", re.I | re.M
)
MAX_FILES, MAX_PATCH_CHARS = 12, 60_000
TEST_TIMEOUT_S = 300.0

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """A commit that could be a task.

    Attributes:
        commit, parent: full ids.
        message: the commit's, trailers left out.
        date: when it was made, ISO 8601.
        patch, test_patch: its changes to sources, and to tests and their configuration.
        test_files: Python test files that it changes or adds.
    """

    commit: str
    parent: str
    message: str
    date: str
    patch: str
    test_patch: str
    test_files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """What became of a commit: a row, or why there is none."""

    commit: str
    row: dict[str, Any] | None
    problem: str = ""


def find_fixes(repository: Path, *, branch: str = "HEAD", any_message: bool = False) -> Iterator[Fix]:
    """Commits of a history, newest first, that change sources and tests together.

    Args:
        repository: a clone, bare or not.
        any_message: take commits whose message has no word of a bug fix, too.
    Raises:
        TaskError: it is no git repository, or has no such branch.
    """
    if not repository.is_dir():
        raise TaskError(f"{repository} is not a folder; give a clone of a git repository")
    log = run_git(repository, "log", "--no-merges", "--format=%H%x00%P%x00%aI%x00%B%x01", branch, "--")
    for entry in log.split("\x01"):
        commit, _, rest = entry.strip("\n").partition("\0")
        parents, _, rest = rest.partition("\0")
        date, _, message = rest.partition("\0")
        if not parents or " " in parents or not (any_message or BUG_WORDS.search(message)):
            continue
        listed = run_git(repository, "diff", "--name-only", "--no-renames", "-z", parents, commit).split("\0")
        paths = [path for path in listed if path]
        tests = [path for path in paths if is_test_path(path) or is_configuration(path)]
        sources = [path for path in paths if path not in tests and path.endswith((".py", ".pyi", ".pyx"))]
        files = tuple(path for path in tests if re.search(r"(^|/)(test_[^/]*|[^/]*_test)\.py$", path))
        if not sources or not files or len(paths) > MAX_FILES:
            continue
        diff = ("diff", "--binary", "--no-color", "--no-ext-diff", "--no-renames", parents, commit, "--")
        patch = run_git(repository, *diff, *[path for path in paths if path not in tests])
        test_patch = run_git(repository, *diff, *tests)
        if len(patch) + len(test_patch) > MAX_PATCH_CHARS or "GIT binary patch" in patch:
            continue
        yield Fix(
            commit=commit,
            parent=parents,
            message=re.sub(r"\n{3,}", "\n\n", TRAILERS.sub("", message)).strip(),
            date=date,
            patch=patch,
            test_patch=test_patch,
            test_files=files,
        )


async def mine(
    repository: Path,
    *,
    out: Path,
    backend: SandboxBackend,
    repo: str = "",
    extra: Sequence[str] = (),
    limit: int = 50,
    max_commits: int = 200,
    any_message: bool = False,
    times: int = 2,
    workers: int = 2,
    progress: Progress | None = None,
) -> list[Mined]:
    """Make rows of the commits whose tests turn from fail to pass, and write them.

    Each row holds: with the gold patch it is graded 1, and with none 0, every one of ``times``.

    Args:
        repo: "owner/name" for the rows; empty takes the folder's name.
        extra: requirements of the tests besides those that the tree declares.
        limit: most rows. max_commits: most commits whose tests are run.
        workers: commits at work at once.
    Returns:
        What became of each commit that was tried, newest first.
    Raises:
        TaskError: it is no git repository. SandboxError: a sandbox failed.
    """
    tell = progress or (lambda what, done, total: None)
    name = repo or repository.resolve().name.removesuffix(".git")
    fixes: list[Fix] = []
    for fix in find_fixes(repository, any_message=any_message):
        if len(fixes) == max_commits:
            break
        fixes.append(fix)
    found: dict[str, Mined] = {}
    left = iter(fixes)
    pins: dict[tuple[str, ...], tuple[str, ...]] = {}

    async def work() -> None:
        for fix in left:
            if sum(mined.row is not None for mined in found.values()) >= limit:
                return
            try:
                row = await _make(
                    repository, fix, out=out, backend=backend, name=name, extra=extra, pins=pins, times=times
                )
                found[fix.commit] = Mined(commit=fix.commit, row=row)
            except (TaskError, GradingError) as error:
                found[fix.commit] = Mined(commit=fix.commit, row=None, problem=str(error))
            tell("commits tried", len(found), len(fixes))

    running = [asyncio.ensure_future(work()) for _ in range(workers)]
    try:
        await asyncio.gather(*running)
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)  # sandboxes are closed before the first error goes on
    ordered = [found[fix.commit] for fix in fixes if fix.commit in found]
    rows = [mined.row for mined in ordered if mined.row is not None][:limit]
    write_jsonl(out, rows)
    return ordered


async def _make(
    repository: Path,
    fix: Fix,
    *,
    out: Path,
    backend: SandboxBackend,
    name: str,
    extra: Sequence[str],
    pins: dict[tuple[str, ...], tuple[str, ...]],
    times: int,
) -> dict[str, Any]:
    """The row of a commit. Raises TaskError with the reason where it makes none."""
    instance_id = f"{name.replace('/', '__')}-{fix.commit[:10]}"
    archive = archives_of(out) / f"{instance_id}.tar.gz"
    await on_thread(archive_of_commit, str(repository), fix.parent, archive)
    try:
        requirements, source = await on_thread(_environment, archive, name.rpartition("/")[2], extra, pins)
        row: dict[str, Any] = {
            "instance_id": instance_id,
            "repo": name,
            "version": fix.parent[:10],
            "base_commit": fix.parent,
            "patch": fix.patch,
            "test_patch": fix.test_patch,
            "problem_statement": fix.message,
            "hints_text": "",
            "created_at": fix.date,
            "environment_setup_commit": fix.parent,
            "FAIL_TO_PASS": json.dumps(fix.test_files),
            "PASS_TO_PASS": "[]",
            "env": {"PYTHONPATH": source},
            "pip_requirements": list(requirements),
            "archive": f"{archive.parent.name}/{archive.name}",
        }
        trial = placed(parse_row({**row, "archive": str(archive.resolve())}), backend)
        before = await _run(backend, trial, "")
        after = await _run(backend, trial, fix.patch)
        turned = [test for test, status in after.statuses.items() if status in PASSING and "::" in test]
        fails = [test for test in turned if before.statuses.get(test) not in PASSING]
        if not fails:
            raise TaskError("no test turns from fail to pass")
        stays = [test for test in turned if before.statuses.get(test) in PASSING]
        row |= {"FAIL_TO_PASS": json.dumps(fails), "PASS_TO_PASS": json.dumps(stays)}
        row["test_cmd"] = (
            f"python -m pytest -rA -p no:cacheprovider -o addopts= --tb=short {shell_words(list(fix.test_files))}"
        )
        await _validate(backend, row, archive, times)
    except BaseException:
        archive.unlink(missing_ok=True)
        raise
    return row


async def _run(backend: SandboxBackend, row: Any, patch: str) -> TestReport:
    problem, report = await run_hidden_tests(backend, row, patch, timeout_s=TEST_TIMEOUT_S, limits=Limits())
    if problem is not None:
        raise TaskError(f"its patch does not apply to its parent: {problem}")
    if not report.complete:
        raise TaskError(f"its tests do not run to their end: {report.detail}")
    return report


async def _validate(backend: SandboxBackend, row: dict[str, Any], archive: Path, times: int) -> None:
    parsed = parse_row({**row, "archive": str(archive.resolve())})
    task = Task(
        id=parsed.instance_id, family="swe", prompt=parsed.problem_statement, hidden=parsed.model_dump(mode="json")
    )
    for _ in range(times):
        for patch, wanted in ((parsed.patch, True), ("", False)):
            score, _ = await grade_patch(backend, task, patch, timeout_s=TEST_TIMEOUT_S)
            if score.passed is not wanted:
                raise TaskError(f"the {'gold' if wanted else 'empty'} patch is graded {score.value:g}: {score.detail}")


def _environment(
    archive: Path, name: str, extra: Sequence[str], pins: dict[tuple[str, ...], tuple[str, ...]]
) -> tuple[tuple[str, ...], str]:
    """(pinned requirements of a commit's tests, where its packages are)."""
    with tempfile.TemporaryDirectory(prefix="verigym-mine-") as scratch:
        root = Path(scratch)
        unpack(archive, root)
        runtime, testing = declared_requirements(root)
        tests = [path.relative_to(root).as_posix() for path in root.rglob("*.py")]
        testing += needed_by_tests(root, list(filter(is_collected, tests)), [*runtime, *testing, *extra])
        key = (*runtime, "|", *testing, "|", *extra)
        if key not in pins:
            pins[key] = pinned_requirements([*runtime, *extra], testing, leave_out=name)
        return pins[key], "src" if (root / "src").is_dir() else "."
