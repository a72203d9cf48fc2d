"""Rows in SWE-bench's schema, and packed repositories."""

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from verigym.envs.datasets.swe import pack_repository, require_repository, require_tests, row_of
from verigym.envs.registry.opening import read_any_tasks
from verigym.envs.task import Task
from verigym.errors import TaskError


def write_rows(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def a_row(**changes) -> dict:
    return {
        "instance_id": "x__y-1",
        "repo": "x/y",
        "problem_statement": "it breaks",
        "FAIL_TO_PASS": '["t.py::a b"]',
        "PASS_TO_PASS": ["t.py::c"],
        "archive": "y.tar.gz",
        "unheard_of": 1,
    } | changes


def test_rows_become_tasks_with_an_absolute_archive(tmp_path):
    (tmp_path / "y.tar.gz").write_bytes(b"")
    (task,) = read_any_tasks(write_rows(tmp_path / "rows.jsonl", a_row()))
    assert (task.id, task.family, task.prompt) == ("x__y-1", "swe", "it breaks")
    assert task.hidden["archive"] == str(tmp_path / "y.tar.gz")
    assert row_of(task).FAIL_TO_PASS == ("t.py::a b",)
    assert row_of(task).PASS_TO_PASS == ("t.py::c",)
    assert row_of(Task.from_json(json.loads(json.dumps(task.to_json())))) == row_of(task)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"archive": "gone.tar.gz"}, r"gone\.tar\.gz is not there"),
        ({"FAIL_TO_PASS": "not json"}, "x__y-1 is not in SWE-bench's schema: FAIL_TO_PASS"),
        ({"problem_statement": 3}, "problem_statement"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, changes, message):
    (tmp_path / "y.tar.gz").write_bytes(b"")
    rows = write_rows(tmp_path / "rows.jsonl", a_row(), a_row(**changes))
    with pytest.raises(TaskError, match=rf"rows\.jsonl, line 2: .*{message}"):
        read_any_tasks(rows)


def test_a_row_without_tests_is_a_task_that_cannot_be_graded(tmp_path):
    (tmp_path / "y.tar.gz").write_bytes(b"")
    rows = write_rows(tmp_path / "rows.jsonl", a_row(FAIL_TO_PASS="[]", PASS_TO_PASS=None))
    (task,) = read_any_tasks(rows)
    with pytest.raises(TaskError, match="x__y-1: FAIL_TO_PASS and PASS_TO_PASS are empty"):
        require_tests(row_of(task))


def test_a_broken_line_is_named_by_its_number(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n{oops\n", encoding="utf-8")
    with pytest.raises(TaskError, match="line 2"):
        read_any_tasks(path)


def test_a_packed_repository_holds_one_commit_and_nothing_of_the_past(tmp_path):
    source = tmp_path / "source"
    (source / "pkg").mkdir(parents=True)
    (source / "pkg" / "a.py").write_text("x = 1\n", encoding="utf-8")
    (source / ".gitignore").write_text("*.pyc\n", encoding="utf-8")
    (source / "left.pyc").write_bytes(b"")
    commands = "git init -q && git add -A && git -c user.name=a -c user.email=b commit -qm 'the FIX' && git tag future"
    subprocess.run(commands, shell=True, cwd=source, check=True)
    commit = pack_repository(source, tmp_path / "one.tar.gz")
    assert pack_repository(source, tmp_path / "two.tar.gz") == commit
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "one.tar.gz") as tar:
        tar.extractall(tmp_path / "out", filter="data")

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=tmp_path / "out", check=True, capture_output=True, text=True
        ).stdout

    assert git("status", "--porcelain") == ""
    assert git("log", "--all", "--format=%H %s").strip() == f"{commit} base"
    kinds = [line.split()[1] for line in git("cat-file", "--batch-all-objects", "--batch-check").splitlines()]
    assert sorted(kinds) == ["blob", "blob", "commit", "tree", "tree"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".git", ".gitignore", "pkg"]


def test_a_row_without_repository_is_a_task_whose_logs_alone_can_be_graded(tmp_path):
    (task,) = read_any_tasks(write_rows(tmp_path / "rows.jsonl", a_row(archive=None)))
    with pytest.raises(TaskError, match="x__y-1: the row has neither 'image' nor 'archive'"):
        require_repository(row_of(task))
