"""Rows of repositories as Harbor's folders, graded there as here."""

import asyncio
import subprocess

import pytest

from verigym.__main__ import main
from verigym.envs.datasets.harbor import harbor_rows
from verigym.envs.datasets.swe import task_of
from verigym.envs.harbor.env import HarborEnv
from verigym.envs.harbor.export import export_harbor
from verigym.envs.task import Task
from verigym.errors import TaskError

from .test_env import backend, play  # noqa: F401 - a fixture

SCRIPT = """#!/bin/bash
cd /app
for n in one two; do
    if [ -e $n ]; then echo "PASSED t.py::$n"; else echo "FAILED t.py::$n - no $n"; fi
done
"""
PATCH = """diff --git a/two b/two
new file mode 100644
--- /dev/null
+++ b/two
@@ -0,0 +1 @@
+x
"""


def row(**fields):
    return {
        "instance_id": "a__b-1",
        "repo": "a/b",
        "base_commit": "0" * 40,
        "problem_statement": 'There is no "two".',
        "patch": PATCH,
        "FAIL_TO_PASS": ["t.py::two"],
        "PASS_TO_PASS": ["t.py::one"],
        "image": "test/app:1",
        "workdir": "/app",
        "interpreter": "/usr/bin/python3",
        "eval_script": SCRIPT,
        "log_parser": "parse_log_pytest",
        **fields,
    }


def exported(tmp_path, **fields):
    return export_harbor([task_of(row(**fields), folder=tmp_path)], tmp_path / "out")


@pytest.mark.usefixtures("local_sandbox")
def test_gold_earns_one_and_empty_nothing(backend, tmp_path):  # noqa: F811
    assert exported(tmp_path).written == ("a__b-1",)
    folder = tmp_path / "out/a__b-1"
    solve = folder / "solution/solve.sh"
    solve.write_text(solve.read_text().replace("git apply --whitespace=nowarn /solution/gold.patch", "touch two"))
    script = folder / "tests/eval.sh"
    script.write_text(script.read_text().replace("cd /app\n", "cd /app\ntouch one\n"))
    (read,) = harbor_rows(tmp_path / "out")
    task = Task.from_json(read.value)
    assert task.prompt == 'There is no "two".\n\nThe repository is in /app; mend it there.\n'
    env = HarborEnv(sandbox=backend)
    score, _ = asyncio.run(play(env, task, env.gold(task)))
    assert score.value == 1.0, env.evidence
    score, _ = asyncio.run(play(env, task, env.empty(task)))
    assert score.value == 0.0


def test_the_gold_patch_is_what_the_solution_applies(tmp_path):
    exported(tmp_path)
    folder = tmp_path / "out/a__b-1/solution"
    subprocess.run(["git", "init", "-q", tmp_path / "repo"], check=True)
    script = (folder / "solve.sh").read_text().replace("/app", "repo").replace("/solution", str(folder))
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "repo/two").read_text() == "x\n"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"image": ""}, "no image with an eval_script"),
        ({"eval_script": ""}, "no image with an eval_script"),
        ({"FAIL_TO_PASS": [], "PASS_TO_PASS": []}, "names no tests"),
        ({"log_parser": "parse_log_django"}, "read by parse_log_django"),
        ({"start_patch": PATCH}, "changed before the agent begins"),
    ],
)
def test_what_the_format_has_no_place_for_is_left_out(tmp_path, fields, told):
    done = exported(tmp_path, **fields)
    assert (done.written, len(done.refused)) == ((), 1)
    assert told in done.refused[0][1]


def test_other_families_are_left_out(tmp_path):
    other = Task(id="m", family="math", prompt="1 + 1?")
    assert export_harbor([other], tmp_path / "out").refused[0][0] == "m"


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    exported(tmp_path)
    with pytest.raises(TaskError, match="is there already"):
        exported(tmp_path)


def test_the_command_says_what_it_left_out(tmp_path, capsys):
    import json

    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        json.dumps(row()) + "\n" + json.dumps(row(instance_id="a__b-2", image="", archive="x.tar.gz")) + "\n"
    )
    (tmp_path / "x.tar.gz").write_bytes(b"")
    assert main(["tasks", "export", str(rows), "--to", "harbor", "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "1 tasks are left out" in told
    assert "wrote 1 tasks" in told
