"""Rows of every schema that ``tasks validate`` takes and writes go through suites, environments and training alike."""

import datetime
import json

import pyarrow
import pyarrow.parquet
import pytest

from verigym.envs.datasets.swe import row_of
from verigym.envs.datasets.swe_examples import example_tasks
from verigym.envs.datasets.training import load_training_set
from verigym.envs.registry.opening import read_any_tasks
from verigym.envs.synthesis.validate import Check, write_kept
from verigym.evals.predictions import match
from verigym.evals.suites.loading import load_suite, load_tasks
from verigym.evals.suites.registry import suite_named
from verigym.evals.suites.spec import LoadOptions, Prediction
from verigym.rewards.patches import patch_of_texts

TESTS = {"FAIL_TO_PASS": ["tests/test_a.py::T::test_x"], "PASS_TO_PASS": ["tests/test_a.py::test_y"]}
DIFF = {"header": {"file": {"path": "a.py"}}, "old_file_content": "x = 2\n", "new_file_content": "x = 1\n"}
BUG = patch_of_texts({"a.py": ("x = 1\n", "x = 2\n")})
ROWS = {
    "SWE-bench": {"instance_id": "a__b-1", "problem_statement": "x", "image": "i", "eval_script": "s", **TESTS},
    "SWE-bench, lists as text": {
        "instance_id": "a__b-2",
        "problem_statement": "x",
        "image": "i",
        **{key: json.dumps(value) for key, value in TESTS.items()},
        "created_at": datetime.datetime(2024, 1, 2),
    },
    "SWE-rebench": {
        "instance_id": "a__b-3",
        "base_commit": "c",
        "problem_statement": "x",
        "docker_image": "i",
        "install_config": {"test_cmd": "pytest -rA", "log_parser": "parse_log_pytest"},
        **TESTS,
    },
    "SWE-smith": {"instance_id": "a__b.01234567.x", "image_name": "i", "patch": BUG, **TESTS},
    "R2E-Gym": {
        "repo_name": "pillow",
        "docker_image": "namanjain12/pillow_final:abc",
        "commit_hash": "abcdef0123456789",
        "problem_statement": "x",
        "parsed_commit_content": json.dumps({"file_diffs": [DIFF]}),
        "expected_output_json": json.dumps({"T.test_up": "PASSED"}),
    },
    "a task of verigym": {**example_tasks()[0].to_json(), "id": "own"},
}
IDS = ["a__b-1", "a__b-2", "a__b-3", "a__b.01234567.x", "pillow__abcdef012345", "own"]


def written(tmp_path, rows):
    """As validate writes rows that hold, from a file beside."""
    checks = [Check(task_id=str(n), row=dict(row), golds="1", empties="0", problem="") for n, row in enumerate(rows)]
    write_kept(tmp_path / "in", tmp_path / "out.jsonl", checks)
    return tmp_path / "out.jsonl"


@pytest.mark.parametrize("kind", ROWS)
def test_rows_that_validate_writes_are_read_by_every_reader(kind, tmp_path):
    path, name = written(tmp_path, [ROWS[kind]]), IDS[list(ROWS).index(kind)]
    for suite in ("swe", "swebench_verified", "tasks"):
        (task,) = load_tasks(suite_named(suite), data=path, options=LoadOptions())
        assert (task.id, task.family) == (name, "swe")
        (job,) = match(suite_named(suite), [task], [Prediction(where="x", task_id=name, given_id=name, text="")])
        assert job.task is task
    assert [task.id for task in load_suite("swe", data=path).tasks] == [name]
    assert [task.id for task in load_suite("verigym/SWE-v0", data=path).tasks] == [name]
    assert load_training_set(path).tasks == (task,)
    assert row_of(task).tests


def test_files_that_mix_schemas_and_tables_are_read_row_by_row(tmp_path):
    path = written(tmp_path, ROWS.values())
    for tasks in (read_any_tasks(path), load_tasks(suite_named("swe"), data=path, options=LoadOptions())):
        assert [task.id for task in tasks] == IDS
    for n, kind in enumerate(["SWE-bench, lists as text", "R2E-Gym", "SWE-smith"]):
        table = tmp_path / f"{n}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROWS[kind]]), table)
        assert [task.id for task in read_any_tasks(table)] == [IDS[list(ROWS).index(kind)]]
