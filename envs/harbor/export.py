"""Rows of SWE-bench's schema as folders of Harbor tasks, which any program that speaks Harbor's format can run."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import TaskError
from ..datasets.swe import SWERow, row_of
from ..datasets.swe_sources import CONDA_PYTHON
from ..runs.files import write_text
from ..task import Task

CHECK = '''\
"""Whether every test that decides has passed, by the lines of pytest's summary (-rA)."""

import sys

wanted = open("/tests/tests.txt").read().splitlines()
passed, others = set(), set()
for line in open(sys.argv[1], errors="replace").read().splitlines():
    word, _, test = line.partition(" ")
    if word in ("PASSED", "XFAIL"):
        passed.add(test.strip())
    elif word in ("FAILED", "ERROR"):
        others.add(test.split(" - ")[0].strip())
missing = [test for test in wanted if test not in passed or test in others]
print(f"{len(wanted) - len(missing)} of {len(wanted)} tests passed; not: {missing[:20]}")
open("/logs/verifier/reward.txt", "w").write("0" if missing else "1")
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What became of the tasks.

    Attributes:
        written: ids of those that have a folder now.
        refused: (id, why not) of the others.
    """

    written: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


def export_harbor(tasks: Iterable[Task], out: Path, *, timeout_s: float = 1800.0) -> Exported:
    """Write a folder for each task of a repository that has an image and pytest's log.

    Args:
        out: is made; a task's folder that is there already is not touched, and is an error.
        timeout_s: of the tests.
    Raises:
        TaskError: a folder is there.
    """
    written, refused = [], []
    for task in tasks:
        why = _why_not(task)
        if why:
            refused.append((task.id, why))
            continue
        row = row_of(task)
        folder = out / row.instance_id
        if folder.exists():
            raise TaskError(f"{folder} is there already; give another --out, or remove it")
        for name, text in _files(row, timeout_s).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_text(folder / name, text)
            if name.endswith(".sh"):
                (folder / name).chmod(0o755)
        written.append(task.id)
    return Exported(written=tuple(written), refused=tuple(refused))


def _why_not(task: Task) -> str | None:
    if task.family != "swe":
        return f"it is of the family {task.family}; tasks of repositories have what Harbor's format needs"
    row = row_of(task)
    if not row.image or not row.eval_script:
        return "it has no image with an eval_script; verigym tasks build-images makes both"
    if not row.tests:
        return "it names no tests"
    if not row.parser.startswith("parse_log_pytest"):
        return f"its log is read by {row.parser}; the exported check reads pytest's"
    if row.start_patch or row.hidden_files:
        return "its image is changed before the agent begins, which Harbor's format has no place for"
    return None


def _files(row: SWERow, timeout_s: float) -> dict[str, str]:
    """Path in the task's folder -> text."""
    python = row.interpreter or CONDA_PYTHON
    test = (
        "#!/bin/bash\n"
        f"cd {shlex.quote(row.root)}\n"
        "mkdir -p /logs/verifier\n"
        "bash /tests/eval.sh > /logs/verifier/eval.log 2>&1\n"
        f"python=$(command -v {shlex.quote(python)} || command -v python3 || command -v python)\n"
        '"$python" -I /tests/check.py /logs/verifier/eval.log || echo 0 > /logs/verifier/reward.txt\n'
    )
    solve = f"#!/bin/bash\ncd {shlex.quote(row.root)}\ngit apply --whitespace=nowarn /solution/gold.patch\n"
    return {
        "task.toml": _toml(row, timeout_s),
        "instruction.md": f"{row.problem_statement.rstrip()}\n\nThe repository is in {row.root}; mend it there.\n",
        "tests/test.sh": test,
        "tests/eval.sh": row.eval_script,
        "tests/check.py": CHECK,
        "tests/tests.txt": "".join(f"{test}\n" for test in dict.fromkeys(row.tests)),
        "solution/solve.sh": solve,
        "solution/gold.patch": row.patch if row.patch.endswith("\n") else row.patch + "\n",
    }


def _toml(row: SWERow, timeout_s: float) -> str:
    """JSON's strings are TOML's."""
    return (
        'schema_version = "1.3"\n\n'
        f"[metadata]\nrepository = {json.dumps(row.repo)}\nbase_commit = {json.dumps(row.base_commit)}\n\n"
        f"[verifier]\ntimeout_sec = {timeout_s}\n\n"
        "[agent]\ntimeout_sec = 3600.0\n\n"
        f"[environment]\ndocker_image = {json.dumps(row.image)}\nworkdir = {json.dumps(row.root)}\n"
        'network_mode = "no-network"\n'
    )
