"""What is counted of rows that verigym and swebench have graded."""

import asyncio
from dataclasses import astuple

import pytest

from verigym.__main__ import main
from verigym.envs.datasets.swe import task_of
from verigym.envs.synthesis import parity
from verigym.rewards.score import Score
from verigym.rewards.swe import TestReport


def test_counts_by_repository_and_swebench_grades_the_first_rows_of_each(tmp_path, monkeypatch):
    rows = [("a__a-1", "a/a"), ("b__b-1", "b/b"), ("a__a-2", "a/a")]
    tasks = [
        task_of(
            {"instance_id": name, "repo": repo, "problem_statement": "x", "FAIL_TO_PASS": ["t"], "image": "i"},
            folder=tmp_path,
        )
        for name, repo in rows
    ]
    pairs = [
        parity.Pair(task=task, kind=kind, patch=patch)
        for task in tasks
        for kind, patch in (("gold", "g"), ("empty", ""))
    ]
    asked = []

    async def graded(backend, task, patch, timeout_s):
        passed = patch == "g" and task.id != "a__a-2"
        report = TestReport(statuses={"t": "passed" if passed else "failed"}, complete=True, exit_code=0)
        return Score(value=float(passed), passed=passed), report

    def by_swebench(task, patch, timeout_s):
        asked.append((task.id, patch))
        return {"resolved": patch == "g" or task.id == "b__b-1"}

    monkeypatch.setattr(parity, "grade_patch", graded)
    monkeypatch.setattr(parity, "run_instance", by_swebench)
    monkeypatch.setattr(parity, "backend_for", lambda row, name: None)
    results = asyncio.run(parity.compare(pairs, timeout_s=1, compared_rows=1))
    assert asked == [("a__a-1", "g"), ("a__a-1", ""), ("b__b-1", "g"), ("b__b-1", "")]
    found = [astuple(one)[:-1] for one in parity.count(results)]
    assert found == [("a/a", 2, 1, 0, 2, 0), ("b/b", 1, 1, 0, 2, 1), ("all", 3, 2, 0, 4, 1)]


def test_fewer_than_no_rows_are_no_number_of_rows(capsys):
    with pytest.raises(SystemExit):
        main(["tasks", "parity", "rows.jsonl", "--compared", "-1"])
    assert "-1 is not 0 or more" in capsys.readouterr().err
