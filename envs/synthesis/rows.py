"""SWE-bench rows of the bugs that were found, and the archives of their repositories."""

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..datasets.eval_scripts import shell_words
from ..datasets.swe import pack_repository
from ..sandbox.background import on_thread_to_its_end
from .baseline import Baseline
from .diffs import git_diff, write_files
from .examine import Bug
from .mutate import Candidate
from .sources import Source, read_source

CREATED_AT = "2000-01-01T00:00:00Z"
"""Fixed, as the commit's date: the same bug gives the same row."""


def archives_of(out: Path) -> Path:
    """The folder of the archives that belong to a rows file."""
    return out.with_name(out.stem + ".archives")


async def make_row(source: Source, baseline: Baseline, bug: Bug, *, out: Path) -> dict[str, Any]:
    """Write the repository's archive and return the row.

    The repository is the clean tree with the bug and without the failing tests, in one commit.

    Args:
        out: the rows file, which need not exist yet; the archive goes into ``archives_of(out)``.
    Returns:
        The row, its archive relative to the rows file.
    Raises:
        TaskError: git failed.
    """
    seen = bug.seen
    base = {seen.candidate.path: seen.buggy, **seen.hidden}
    test_patch = git_diff(seen.hidden, {name: read_source(source, name) for name in seen.hidden})
    instance_id = instance_id_of(source, seen.candidate)
    archive = archives_of(out) / f"{instance_id}.tar.gz"
    commit = await on_thread_to_its_end(_pack, source, base, archive)
    test_files = dict.fromkeys(test.partition("::")[0] for test in (*seen.fail_to_pass, *bug.pass_to_pass))
    return {
        "instance_id": instance_id,
        "repo": source.repo,
        "version": source.version,
        "base_commit": commit,
        "patch": seen.patch,
        "test_patch": test_patch,
        "problem_statement": seen.statement,
        "hints_text": "",
        "created_at": CREATED_AT,
        "environment_setup_commit": commit,
        "FAIL_TO_PASS": json.dumps(seen.fail_to_pass),
        "PASS_TO_PASS": json.dumps(bug.pass_to_pass),
        "test_cmd": f"python -m pytest -q {shell_words(list(test_files))}",
        "env": dict(source.env),
        "pip_requirements": list(source.requirements),
        "python": source.python,
        "archive": f"{archive.parent.name}/{archive.name}",
        "operator": seen.candidate.mutation.operator,
        **({"test_share": asdict(baseline.share)} if baseline.share is not None else {}),
    }


def instance_id_of(source: Source, candidate: Candidate) -> str:
    """``<name>-<version>__<operator>-<hash>``; the hash is of the file's path and the bug."""
    mutation = candidate.mutation
    what = f"{candidate.path}\0{mutation.start}\0{mutation.end}\0{mutation.replacement}"
    digest = hashlib.sha256(what.encode()).hexdigest()[:8]
    clean = re.sub(r"[^A-Za-z0-9._-]", "-", f"{source.name}-{source.version}")
    return f"{clean}__{mutation.operator}-{digest}"


def _pack(source: Source, base: Mapping[str, str], archive: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="verigym-base-") as scratch:
        tree = Path(scratch) / "tree"
        shutil.copytree(source.root, tree, symlinks=True)
        write_files(tree, base)
        return pack_repository(tree, archive)
