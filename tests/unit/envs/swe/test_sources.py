"""Rows of the public training sets become tasks; what the evaluation sets hold is kept out."""

import json
import os
import subprocess

import pytest

from verigym.envs.datasets.decontaminate import decontaminate
from verigym.envs.datasets.eval_scripts import CODE, END, START
from verigym.envs.datasets.swe import row_of, task_of
from verigym.envs.datasets.swe_sources import image_name
from verigym.errors import TaskError
from verigym.rewards.logs.parsers import R2E_PARSER, SMITH_PARSER
from verigym.rewards.patches import patch_of_texts

BUG = patch_of_texts({"pkg/a.py": ("x = 1\n", "x = 2\n")})
FIX = patch_of_texts({"pkg/a.py": ("x = 2\n", "x = 1\n")})


def row(tmp_path, raw):
    return row_of(task_of(raw, folder=tmp_path))


def test_image_names_with_and_without_namespace():
    assert image_name("Django__django-1") == "swebench/sweb.eval.x86_64.django_1776_django-1:latest"
    assert image_name("django__django-1", namespace=None) == "sweb.eval.x86_64.django__django-1:latest"
    assert image_name("a__b-1", namespace="xingyaoww") == "xingyaoww/sweb.eval.x86_64.a_s_b-1:latest"
    assert image_name("a__b-1", namespace="me", arch="arm64") == "me/sweb.eval.arm64.a_1776_b-1:latest"


def test_five_x_fields_stand_and_four_x_rows_take_the_repositorys(tmp_path):
    five = {
        "instance_id": "django__django-1",
        "repo": "django/django",
        "problem_statement": "x",
        "FAIL_TO_PASS": '["test_a (m.T)", "test_b[x"]',
        "image": "swebench/x:latest",
        "eval_script": "#!/bin/bash",
        "log_parser": "parse_log_pytest",
        "eval_type": "fail_only",
    }
    known = row(tmp_path, five)
    assert (known.image, known.parser, known.eval_type) == ("swebench/x:latest", "parse_log_pytest", "fail_only")
    assert (known.root, known.FAIL_TO_PASS) == ("/testbed", ("test_a (m.T)", "test_b[x"))
    four = {key: value for key, value in five.items() if key not in ("image", "eval_script", "log_parser", "eval_type")}
    assert (row(tmp_path, four).parser, row(tmp_path, four).eval_type) == ("parse_log_django", "pass_and_fail")
    assert row(tmp_path, {**four, "repo": "x/y"}).parser == "parse_log_pytest"


def test_swe_smiths_patch_is_the_bug(tmp_path):
    found = row(
        tmp_path,
        {
            "instance_id": "a__b.123__c",
            "repo": "swesmith/a__b.12345678",
            "patch": BUG,
            "FAIL_TO_PASS": ["tests/test_a.py::test_x"],
            "PASS_TO_PASS": ["tests/test_a.py::test_y"],
            "image_name": "swesmith.x86_64.a__b.12345678",
            "problem_statement": "x is wrong",
        },
    )
    assert (found.start_patch, found.patch) == (BUG, FIX)
    assert found.hidden_files == ("tests/test_a.py",)
    assert found.image == "swesmith.x86_64.a__b.12345678"
    assert "pytest --disable-warnings --color=no --tb=no --verbose\n" in found.eval_script  # the whole suite
    assert found.parser == SMITH_PARSER


def test_swe_rebench_states_its_command_and_parser(tmp_path):
    found = row(
        tmp_path,
        {
            "instance_id": "a__b-1",
            "base_commit": "abc",
            "problem_statement": "x",
            "test_patch": patch_of_texts({"tests/test_a.py": ("a\n", "b\n")}),
            "FAIL_TO_PASS": ["tests/test_a.py::test_x"],
            "install_config": json.dumps({"test_cmd": "pytest --no-header -rA", "log_parser": "parse_log_pytest"}),
            "docker_image": "swerebench/sweb.eval.x86_64.a_1776_b-1",
        },
    )
    assert found.image == "swerebench/sweb.eval.x86_64.a_1776_b-1"
    assert "pytest --no-header -rA tests/test_a.py\n" in found.eval_script
    assert "git checkout abc tests/test_a.py" in found.eval_script
    assert found.eval_script.count(START) == found.eval_script.count(END) == 1


def test_paths_in_scripts_are_words_whatever_is_in_their_names(tmp_path):
    """The script runs: what is checked out and what the command gets are the files of the test patch."""
    names = ["tests/test a.py", "tests/te'st.py", "tests/$(touch x).py", "tests/té.py", "tests/t;ls.py"]
    repository = tmp_path / "testbed"
    (repository / "tests").mkdir(parents=True)
    for name in names:
        (repository / name).write_text("a\n")
    commands = [["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]]
    for command in commands:
        subprocess.run(["git", *command], cwd=repository, check=True)
    for name in names:
        (repository / name).write_text("the agent's\n")
    found = row(
        tmp_path,
        {
            "instance_id": "a__b-1",
            "base_commit": "HEAD",
            "problem_statement": "x",
            "test_patch": patch_of_texts(
                {**dict.fromkeys(names, ("a\n", "b\n")), "tests/x y.py": ("", "n\n"), "tests/d.json": ("", "1\n")}
            ),
            "FAIL_TO_PASS": ["tests/test a.py::test_x"],
            "install_config": json.dumps({"test_cmd": "cat"}),
            "docker_image": "x",
        },
    )
    script = found.eval_script.replace("/testbed", str(repository))
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)}
    )
    assert done.stdout == "b\n" * len(names) + f"n\n{CODE}: 0\n", done.stderr
    assert not (repository / "x").exists()
    assert {(repository / name).read_text() for name in names} == {"a\n"}


def test_r2e_gym_names_what_its_tests_must_say(tmp_path):
    commit = {
        "file_diffs": [
            {"header": {"file": {"path": "pkg/a.py"}}, "old_file_content": "x = 2\n", "new_file_content": "x = 1\n"},
            {"header": {"file": {"path": "tests/test_a.py"}}, "old_file_content": "", "new_file_content": "y\n"},
        ]
    }
    raw = {
        "repo_name": "pillow",
        "docker_image": "namanjain12/pillow_final:abc",
        "commit_hash": "abcdef0123456789",
        "problem_statement": "x is wrong",
        "parsed_commit_content": json.dumps(commit),
        "expected_output_json": json.dumps({"\x1b[1mT.test_a\x1b[0m": "PASSED", "T.test_b - no": "FAILED"}),
    }
    found = row(tmp_path, raw)
    assert (found.instance_id, found.FAIL_TO_PASS, found.parser) == ("pillow__abcdef012345", ("T.test_a",), R2E_PARSER)
    assert (found.patch, found.hidden_files) == (FIX, ("run_tests.sh", "/r2e_tests"))
    with pytest.raises(TaskError, match="expected_output_json is not JSON"):
        row(tmp_path, {**raw, "expected_output_json": "{"})


HELD = {
    "instance_id": "psf__requests-1",
    "repo": "psf/requests",
    "base_commit": "abc",
    "patch": patch_of_texts({"r.py": ("", "def prepared(self, request):\n    return self.adapter.send(request)\n")}),
    "problem_statement": "Sending a prepared request through a session drops the cookies that were set before it",
}


def training(name, **fields):
    return {"instance_id": name, "repo": "other/library", "base_commit": "f00", "problem_statement": "unlike", **fields}


def test_rows_of_an_evaluations_repository_or_problem_are_left_out():
    rows = [
        training("kept"),
        training("smith", repo="swesmith/psf__requests.abcdef12"),
        training("r2e", repo="Requests"),
        training("PSF__requests-1"),
        training("commit", base_commit="abc"),
        training("patch", patch=HELD["patch"].replace("    return", "\treturn")),
        training("statement", problem_statement=HELD["problem_statement"].upper() + "!"),
    ]
    kept, dropped = decontaminate(rows, [HELD])
    assert [row["instance_id"] for row in kept] == ["kept"]
    assert [(drop.instance_id, drop.reason) for drop in dropped] == [
        ("smith", "repository"),
        ("r2e", "repository"),
        ("PSF__requests-1", "instance"),
        ("commit", "commit"),
        ("patch", "patch"),
        ("statement", "statement"),
    ]
    assert {drop.matches for drop in dropped} == {"psf__requests-1"}
    kept, _ = decontaminate(rows[:3], [HELD], by_repository=False)
    assert kept == rows[:3]
