"""Rows in SWE-bench's schema: a repository, an issue, and the tests that decide."""

import gzip
import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ...errors import TaskError
from ...model.chat.encoding import from_bytes
from ..task import Task
from .swe_sources import canonical_row, is_swe_row

_EPOCH = "2000-01-01T00:00:00+00:00"


class SWERow(BaseModel):
    """One row, as published or as synthesized; keys it does not know are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    instance_id: str
    """Unique name of the task."""
    repo: str = ""
    base_commit: str = ""
    version: str = ""
    problem_statement: str
    """What the agent is told."""
    hints_text: str = ""
    patch: str = ""
    """The gold patch."""
    test_patch: str = ""
    """Brings the hidden tests; applied after the agent's patch, in the grading sandbox only."""
    FAIL_TO_PASS: tuple[str, ...] = ()
    """Test ids that fail at base and pass with the gold patch."""
    PASS_TO_PASS: tuple[str, ...] = ()
    """Test ids that pass before and after."""
    test_cmd: str = ""
    env: dict[str, str] = Field(default_factory=dict)
    """Variables of the tests and of the agent's shell; a relative PYTHONPATH is relative to the repository."""
    pip_requirements: tuple[str, ...] = ()
    """Pinned requirements of the tests."""
    python: str = ""
    pytest_plugins: tuple[str, ...] = ()
    """Installed pytest plugins that the tests need, by module name: none is loaded by itself."""
    archive: str = ""
    """A .tar.gz of the repository at base_commit with its .git; relative to the rows file."""
    clone: str = ""
    """Where the repository can be cloned from, for building an image; empty is GitHub's ``repo``."""
    image: str = ""
    """Container image with the repository and what it needs (SWE-bench 5.x)."""
    workdir: str = ""
    """The repository's folder in the image; empty is /testbed."""
    interpreter: str = ""
    """Absolute path in the image of the Python that has the tests' packages. Where it is given, verigym's own runner
    runs the tests; where not, ``eval_script`` does."""
    eval_script: str = ""
    """Shell script that applies the hidden tests and runs them between markers (SWE-bench 5.x)."""
    log_parser: str = ""
    """Which of swebench's parsers reads the script's log (SWE-bench 5.x); empty takes the repository's."""
    eval_type: str = "pass_and_fail"
    """"pass_and_fail", or "fail_only" for runners that print failures alone (SWE-bench 5.x)."""
    test_share: dict[str, int] = Field(default_factory=dict)
    """Of a synthesized row whose tests are a share of a long suite, how much of it they are ("chosen" of "collected"
    tests, "chosen_files" of "files", by "seed"): then the named tests alone are run, not all of their files."""
    start_patch: str = ""
    """Applied to the image's repository before the agent starts, and again before its patch is graded."""
    hidden_files: tuple[str, ...] = ()
    """Files of the image that the agent must not see; they are there again at grading."""
    network: dict[Literal["hosts", "ports"], tuple[str, ...]] = Field(default_factory=dict)
    """What the agent needs to reach: "hosts" of an allow-list (NAME, NAME:PORT, *.NAME), and "ports" of the machine by
    name. It gets what the environment's option of this name allows."""

    @field_validator(
        "FAIL_TO_PASS", "PASS_TO_PASS", "pip_requirements", "pytest_plugins", "hidden_files", mode="before"
    )
    @classmethod
    def _json_list(cls, value: Any) -> Any:
        if isinstance(value, str):
            return json.loads(value) if value.strip() else ()
        return () if value is None else value

    @field_validator(
        *("hints_text", "test_cmd", "python", "archive", "image", "version", "patch", "test_patch", "eval_script"),
        *("log_parser", "base_commit", "interpreter", "workdir", "clone", "start_patch"),
        mode="before",
    )
    @classmethod
    def _text(cls, value: Any) -> Any:
        return "" if value is None else value

    @field_validator("eval_type", mode="before")
    @classmethod
    def _eval_type(cls, value: Any) -> Any:
        return value or "pass_and_fail"

    @property
    def root(self) -> str:
        """The repository's folder in a sandbox."""
        return self.workdir or ("/testbed" if self.image else "/workspace")

    @property
    def parser(self) -> str:
        """The log parser stated, else the repository's own in swebench, else pytest's."""
        if self.log_parser:
            return self.log_parser
        from swebench.harness.log_parsers.python import MAP_REPO_TO_PARSER_PY

        named = MAP_REPO_TO_PARSER_PY.get(self.repo)
        return named.__name__ if named is not None else "parse_log_pytest"

    @property
    def tests(self) -> tuple[str, ...]:
        return (*self.FAIL_TO_PASS, *self.PASS_TO_PASS)


def task_of(raw: dict[str, Any], *, folder: Path) -> Task:
    """The task of one raw row of SWE-bench or of a training set (``swe_sources``); a relative archive is looked for in
    ``folder``. A row without repository is a task too: its stored logs can be graded. So is one without tests, which
    cannot be: evaluations count it as ungradable.

    Raises:
        TaskError: the row is in none of their schemas, or its archive is not there.
    """
    row = parse_row(raw)
    archive = _archive_of(row, folder) if row.archive else ""
    metadata = {key: raw[key] for key in ("repo", "version", "difficulty", "operator", "split") if raw.get(key)}
    return Task(
        id=row.instance_id,
        family="swe",
        prompt=row.problem_statement,
        image=row.image or None,
        hidden={**row.model_dump(mode="json"), "archive": archive},
        metadata=metadata,
    )


def any_task_of(raw: dict[str, Any], *, folder: Path) -> Task:
    """``task_of`` for a row of SWE-bench or of a training set; else the task that ``Task.to_json`` wrote.

    Raises:
        TaskError: it is neither.
    """
    return task_of(raw, folder=folder) if is_swe_row(raw) else Task.from_json(raw)


def require_tests(row: SWERow) -> None:
    """Raises TaskError where a row names no test, so that there is nothing to grade by."""
    if not row.tests:
        raise TaskError(f"{row.instance_id}: FAIL_TO_PASS and PASS_TO_PASS are empty; the task cannot be graded")


def require_repository(row: SWERow) -> None:
    """Raises TaskError where a row names neither an image nor an archive, so that no sandbox can hold it."""
    if not row.image and not row.archive:
        raise TaskError(
            f"{row.instance_id}: the row has neither 'image' nor 'archive' (a .tar.gz of the repository at "
            "base_commit, with .git); verigym tasks build-images makes both"
        )


def _archive_of(row: SWERow, folder: Path) -> str:
    archive = (folder / row.archive).resolve()
    if not archive.is_file():
        raise TaskError(f"{row.instance_id}: archive {archive} is not there; it is looked for beside the rows file")
    return str(archive)


def row_of(task: Task) -> SWERow:
    """The row a task was made of.

    Raises:
        TaskError: the task's ``hidden`` is no such row.
    """
    return _row(task.hidden)


def parse_row(raw: Mapping[str, Any]) -> SWERow:
    """One raw row of SWE-bench or of a training set.

    Raises:
        TaskError: it is in none of their schemas.
    """
    return _row(canonical_row(raw))


def _row(raw: Any) -> SWERow:
    try:
        return SWERow.model_validate(raw)
    except ValidationError as error:
        name = raw.get("instance_id", "a row") if isinstance(raw, dict) else "a row"
        problems = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise TaskError(f"{name} is not in SWE-bench's schema: {problems}") from None


def pack_repository(folder: str | Path, archive: str | Path, *, exclude: Sequence[str] = (".git",)) -> str:
    """Write the files of a folder as a repository of exactly one commit, for a row's ``archive``.

    Nothing of an existing .git is taken over, so no branch, tag, stash or loose object of the future is inside.
    The same files give the same bytes and the same commit.

    Args:
        folder: the files; those git ignores are left out.
        archive: the .tar.gz to write.
        exclude: names at the folder's top that are left out.
    Returns:
        The commit's id, for ``base_commit``.
    Raises:
        TaskError: git failed (its message is in the error), or there is no git.
    """
    folder, archive = Path(folder).resolve(), Path(archive)
    with tempfile.TemporaryDirectory(prefix="verigym-pack-") as scratch:
        git_dir = Path(scratch) / ".git"
        _git(git_dir, folder, "init", "--quiet", "--initial-branch=main", "--template=")
        pathspecs = [".", *(f":(exclude,top){name}" for name in exclude if name != ".git")]
        # Above the threshold git writes into one pack: loose, each file would be a folder in every sandbox too.
        _git(git_dir, folder, "-c", "core.bigFileThreshold=1", "add", "--all", "--", *pathspecs)
        _git(git_dir, folder, "commit", "--quiet", "--allow-empty", "--no-verify", "-m", "base")
        commit = _git(git_dir, folder, "rev-parse", "HEAD").strip()
        tracked = _git(git_dir, folder, "ls-files", "-z").split("\0")[:-1]
        (git_dir / "index").unlink()
        _git(git_dir, folder, "read-tree", "HEAD")  # an index without this machine's times and inodes
        (git_dir / "config").write_text("[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n")
        _write_archive(archive, folder, tracked, git_dir)
    return commit


def _git(git_dir: Path, work_tree: Path, *arguments: str) -> str:
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "verigym"), ("EMAIL", "verigym@localhost"), ("DATE", _EPOCH))
    }
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ.get("PATH", os.defpath)}
    settings = ("-c", "core.autocrlf=false", "-c", "core.fsync=none")
    command = ["git", f"--git-dir={git_dir}", f"--work-tree={work_tree}", *settings, *arguments]
    try:
        done = subprocess.run(command, env={**identity, **quiet}, cwd=work_tree, capture_output=True, check=False)
    except FileNotFoundError:
        raise TaskError("git is not installed; packing a repository needs it (apt-get install git)") from None
    if done.returncode:
        raise TaskError(f"git {arguments[0]} failed in {work_tree}: {done.stderr.decode(errors='replace').strip()}")
    return from_bytes(done.stdout)


def _write_archive(archive: Path, folder: Path, tracked: Sequence[str], git_dir: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in sorted(tracked):
            tar.add(folder / name, arcname=name, recursive=False, filter=_anonymous)
        kept = [git_dir / name for name in ("HEAD", "config", "index", "refs/heads", "refs/heads/main")]
        for path in [git_dir, git_dir / "refs", *kept, *sorted((git_dir / "objects").rglob("*"))]:
            tar.add(path, arcname=str(path.relative_to(git_dir.parent)), recursive=False, filter=_anonymous)
    archive.parent.mkdir(parents=True, exist_ok=True)
    with archive.open("wb") as out, gzip.GzipFile(fileobj=out, mode="wb", filename="", mtime=0) as packed:
        packed.write(buffer.getvalue())


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 946684800
    executable = member.mode & 0o100
    member.mode = 0o755 if member.isdir() or executable else 0o644
    return member
