"""Which verdicts make a task hold, and what is written of it."""

import json
from pathlib import Path

import pytest

from verigym.envs.synthesis.validate import Check, kept_rows, problem_of_scores, write_kept


@pytest.mark.parametrize(
    ("golds", "empties", "expected"),
    [
        ("1 1 1", "0 0 0", ""),
        ("1 0 1", "0 0 0", "flaky: why"),
        ("1 1 1", "0 1 0", "flaky: why"),
        ("0 0 0", "0 0 0", "gold is not 1: why"),
        ("1 1 1", "1 1 1", "empty is not 0"),
        ("1 - 1", "0 0 0", "cannot be graded: why"),
    ],
)
def test_problems(golds: str, empties: str, expected: str):
    assert problem_of_scores(golds.split(), empties.split(), "why") == expected


def test_rows_that_hold_are_written_with_their_archives(tmp_path: Path):
    (tmp_path / "in.archives").mkdir()
    for name in "ab":
        (tmp_path / "in.archives" / f"{name}.tar.gz").write_bytes(name.encode())
    checks = [
        Check(task_id=name, row={"instance_id": name, "archive": f"in.archives/{name}.tar.gz"},
              golds="1", empties="0", problem=problem)
        for name, problem in (("a", ""), ("b", "flaky"))
    ]  # fmt: skip
    assert [row["instance_id"] for row in kept_rows(checks)] == ["a"]
    write_kept(tmp_path / "in.jsonl", tmp_path / "elsewhere" / "out.jsonl", checks)
    (row,) = map(json.loads, (tmp_path / "elsewhere" / "out.jsonl").read_text().splitlines())
    assert (tmp_path / "elsewhere" / row["archive"]).read_bytes() == b"a"
    write_kept(tmp_path / "in.jsonl", tmp_path / "beside.jsonl", checks)
    assert json.loads((tmp_path / "beside.jsonl").read_text())["archive"] == "in.archives/a.tar.gz"
