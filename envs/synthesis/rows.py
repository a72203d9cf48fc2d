"""SWE-bench rows of the bugs that were found, and the archives of their repositories."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import TaskError
from ..datasets.eval_scripts import shell_words
from ..datasets.swe import pack_repository
from ..sandbox.background import on_thread_to_its_end
from .baseline import Baseline
from .mutate import Bug, read_source
from .sources import Source
from .statement import Example, problem_statement, secret_words

CREATED_AT = "2000-01-01T00:00:00Z"
"""Fixed, as the commit's date: the same bug gives the same row."""


def archives_of(out: Path) -> Path:
    """The folder of the archives that belong to a rows file."""
    return out.with_name(out.stem + ".archives")


async def make_row(source: Source, baseline: Baseline, bug: Bug, *, out: Path) -> dict[str, Any] | None:
    """Write the repository's archive and return the row.

    The repository is the clean tree with the bug and without the failing tests, in one commit.

    Args:
        out: the rows file, which need not exist yet; the archive goes into ``archives_of(out)``.
    Returns:
        The row, its archive relative to the rows file; None where no statement keeps the place to itself.
    Raises:
        TaskError: git failed.
    """
    path = bug.candidate.path
    base = {path: bug.buggy, **bug.hidden}
    patch = git_diff({path: bug.buggy}, {path: read_source(source, path)})
    test_patch = git_diff(bug.hidden, {name: read_source(source, name) for name in bug.hidden})
    statement = problem_statement(
        source.name,
        _examples(source, baseline, bug),
        num_failing=len(bug.fail_to_pass),
        patch=patch,
        secrets=secret_words(path, bug.fail_to_pass, baseline.locations),
    )
    if statement is None:
        return None
    instance_id = instance_id_of(source, bug)
    archive = archives_of(out) / f"{instance_id}.tar.gz"
    commit = await on_thread_to_its_end(_pack, source, base, archive)
    test_files = dict.fromkeys(test.partition("::")[0] for test in (*bug.fail_to_pass, *bug.pass_to_pass))
    return {
        "instance_id": instance_id,
        "repo": source.repo,
        "version": source.version,
        "base_commit": commit,
        "patch": patch,
        "test_patch": test_patch,
        "problem_statement": statement,
        "hints_text": "",
        "created_at": CREATED_AT,
        "environment_setup_commit": commit,
        "FAIL_TO_PASS": json.dumps(bug.fail_to_pass),
        "PASS_TO_PASS": json.dumps(bug.pass_to_pass),
        "test_cmd": f"python -m pytest -q {shell_words(list(test_files))}",
        "env": dict(source.env),
        "pip_requirements": list(source.requirements),
        "python": source.python,
        "archive": f"{archive.parent.name}/{archive.name}",
        "operator": bug.candidate.mutation.operator,
        **({"test_share": asdict(baseline.share)} if baseline.share is not None else {}),
    }


def instance_id_of(source: Source, bug: Bug) -> str:
    """``<name>-<version>__<operator>-<hash>``; the hash is of the file's path and the bug."""
    mutation = bug.candidate.mutation
    what = f"{bug.candidate.path}\0{mutation.start}\0{mutation.end}\0{mutation.replacement}"
    digest = hashlib.sha256(what.encode()).hexdigest()[:8]
    clean = re.sub(r"[^A-Za-z0-9._-]", "-", f"{source.name}-{source.version}")
    return f"{clean}__{mutation.operator}-{digest}"


def git_diff(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The diff that git makes between two states of some files.

    Args:
        before, after: path -> text, of the same paths.
    Raises:
        TaskError: git failed.
    """
    with tempfile.TemporaryDirectory(prefix="verigym-diff-") as scratch:
        folder = Path(scratch)
        _write(folder / "a", before)
        _write(folder / "b", after)
        options = ("--no-index", "--no-prefix", "--no-color", "--no-ext-diff", "--no-textconv")
        return _git(folder, "diff", *options, "a", "b", differs=1)


def _examples(source: Source, baseline: Baseline, bug: Bug) -> list[Example]:
    """The failing tests, one for each function, those with the shortest words first."""
    examples: dict[tuple[str, int], Example] = {}
    for test in bug.fail_to_pass:
        failure = bug.failures.get(test)
        path, line = baseline.locations[test]
        if failure is None or (path, line) in examples:
            continue
        lines = tuple(number for file, number in failure.frames if file == path)
        text = read_source(source, path)
        examples[path, line] = Example(
            function=(text, line), lines=lines, message=failure.message, inputs=failure.inputs
        )
    return sorted(examples.values(), key=lambda example: len(example.message))


def _pack(source: Source, base: Mapping[str, str], archive: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="verigym-base-") as scratch:
        tree = Path(scratch) / "tree"
        shutil.copytree(source.root, tree, symlinks=True)
        _write(tree, base)
        return pack_repository(tree, archive)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text.encode())


def _git(folder: Path, *arguments: str, differs: int = 0) -> str:
    """Output of git; ``differs`` is an exit status that is no failure either."""
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "PATH": os.environ.get("PATH", os.defpath)}
    command = ["git", "-C", str(folder), "-c", "core.autocrlf=false", "-c", "core.quotepath=false", *arguments]
    try:
        done = subprocess.run(command, env=quiet, capture_output=True, check=False)
    except FileNotFoundError:
        raise TaskError("git is not installed; making tasks needs it (apt-get install git)") from None
    if done.returncode not in (0, differs):
        raise TaskError(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()
