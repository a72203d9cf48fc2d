"""Real histories become rows, and rows become images: on a repository made here, with a bug mended in its history."""

import asyncio
import json
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from verigym.__main__ import main
from verigym.envs.datasets.repository import archive_of_commit, find_clone
from verigym.envs.datasets.swe import row_of
from verigym.envs.registry.opening import read_any_tasks
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.swe.grading import grade_patch
from verigym.envs.synthesis.build_images import completed_fields
from verigym.envs.synthesis.mine import find_fixes
from verigym.errors import SandboxError, TaskError

COMMITS = [
    ("start", {"clock.py": "def later(h, n):\n    return h + n\n", "README": "clock\n"}),
    (
        "add tests",
        {"tests/test_clock.py": "from clock import later\n\n\ndef test_day():\n    assert later(1, 2) == 3\n"},
    ),
    ("Rename a variable", {"clock.py": "def later(hour, n):\n    return hour + n\n", "tests/test_other.py": "x = 1\n"}),
    (
        "Fix hours after midnight (#7)\n\nlater(23, 2) gave 25.\n\nSigned-off-by: A <a@b>",
        {
            "clock.py": "def later(hour, n):\n    return (hour + n) % 24\n",
            "tests/test_clock.py": "from clock import later\n\n\ndef test_day():\n    assert later(1, 2) == 3\n\n\n"
            "def test_midnight():\n    assert later(23, 2) == 1\n",
        },
    ),
    (
        "Fix a comment",
        {"clock.py": "# hours\ndef later(hour, n):\n    return (hour + n) % 24\n", "tests/test_other.py": "x = 2\n"},
    ),
]


@pytest.fixture(scope="module")
def history(tmp_path_factory) -> tuple[Path, list[str]]:
    """(clone, its commits)."""
    folder = tmp_path_factory.mktemp("history") / "clock"
    folder.mkdir()

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    commits = []
    for message, files in COMMITS:
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        git("add", ".")
        git("commit", "-qm", message)
        commits.append(git("rev-parse", "HEAD"))
    return folder, commits


def test_only_commits_that_speak_of_a_bug_and_change_sources_and_tests_are_tried(history):
    folder, commits = history
    fixes = list(find_fixes(folder))
    assert [fix.commit for fix in fixes] == [commits[4], commits[3]]
    assert [fix.commit for fix in find_fixes(folder, any_message=True)] == [commits[4], commits[3], commits[2]]
    fix = fixes[1]
    assert (fix.parent, fix.test_files) == (commits[2], ("tests/test_clock.py",))
    assert fix.message == "Fix hours after midnight (#7)\n\nlater(23, 2) gave 25."
    assert "clock.py" in fix.patch
    assert "test_clock" not in fix.patch
    assert "tests/test_clock.py" in fix.test_patch


def test_a_commits_archive_has_its_true_id_and_nothing_later(history, tmp_path):
    folder, commits = history
    archive_of_commit(str(folder), commits[2], tmp_path / "one.tar.gz")
    archive_of_commit(str(folder), commits[2], tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "one.tar.gz") as tar:
        tar.extractall(tmp_path / "tree", filter="data")

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=tmp_path / "tree", capture_output=True, text=True).stdout.strip()

    assert git("rev-parse", "HEAD") == commits[2]
    assert git("status", "--porcelain") == ""
    found = git("cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)")
    assert [line for line in found.splitlines() if line.endswith("commit")] == [f"{commits[2]} commit"]
    with pytest.raises(TaskError, match="git fetch"):
        archive_of_commit(str(folder), "0" * 40, tmp_path / "none.tar.gz")
    with pytest.raises(TaskError, match="neither an address nor a folder"):
        find_clone("a/b", stated="/nowhere/at/all")
    assert find_clone("a/clock", folders=[folder.parent]) == str(folder)
    assert find_clone("a/b") == "https://github.com/a/b"


@pytest.mark.slow
def test_mined_rows_hold(history, tmp_path, capsys):
    folder, commits = history
    try:
        backend = make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no local sandbox on this machine: {error}")
    out = tmp_path / "rows.jsonl"
    assert main(["tasks", "mine", str(folder), "--out", str(out), "--sandbox", "local", "--workers", "1"]) == 0
    (task,) = read_any_tasks(out)
    row = row_of(task)
    assert (row.instance_id, row.base_commit) == (f"clock-{commits[3][:10]}", commits[2])
    assert row.FAIL_TO_PASS == ("tests/test_clock.py::test_midnight",)
    assert row.PASS_TO_PASS == ("tests/test_clock.py::test_day",)
    assert asyncio.run(grade_patch(backend, task, row.patch))[0].value == 1.0
    assert "no test turns from fail to pass" in " ".join(capsys.readouterr().out.split())


def test_a_folder_without_git_is_told(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    arguments = ["tasks", "mine", str(tmp_path / "empty"), "--out", str(tmp_path / "o.jsonl"), "--sandbox", "unsafe"]
    assert main(arguments) == 2
    assert "not a git repository" in capsys.readouterr().err


def test_build_images_without_an_engine_is_one_message(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no.sock")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instance_id": "a", "problem_statement": "x"}) + "\n")
    command = ["tasks", "build-images", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "o.jsonl")]
    assert main(command) == 2
    assert "no Docker engine answers" in capsys.readouterr().err


def test_completed_rows_have_swebenchs_five_x_fields(tmp_path):
    raw = {
        "instance_id": "a",
        "problem_statement": "x",
        "base_commit": "abc",
        "test_patch": "--- a/tests/test_a.py\n+++ b/tests/test_a.py\n@@ -1 +1 @@\n-a\n+b\n",
        "FAIL_TO_PASS": ["tests/test_a.py::t"],
        "env": {"PYTHONPATH": "src", "TZ": "it's UTC"},
    }
    (tmp_path / "rows.jsonl").write_text(json.dumps(raw) + "\n")
    (task,) = read_any_tasks(tmp_path / "rows.jsonl")
    fields = completed_fields(row_of(task), "image:1")
    assert fields["image"] == "image:1"
    script = fields["eval_script"]
    assert "export PYTHONPATH=src\nexport TZ='it'\"'\"'s UTC'\n" in script
    assert "git checkout abc tests/test_a.py\ngit apply -v - <<'EOF_114329324912'\n--- a/tests" in script
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", ["", "python -m pytest -q tests/test_a.py"])
def test_the_script_of_an_image_names_tests_that_pass(command, tmp_path):
    """A log without them resolves nothing, gold patches neither."""
    raw = {"instance_id": "a", "problem_statement": "x", "base_commit": "abc", "test_cmd": command}
    (tmp_path / "rows.jsonl").write_text(json.dumps({**raw, "FAIL_TO_PASS": ["tests/test_a.py::t"]}) + "\n")
    (task,) = read_any_tasks(tmp_path / "rows.jsonl")
    script = completed_fields(row_of(task), "image:1")["eval_script"]
    assert re.search(r"^python -m pytest -rA .* tests/test_a.py$", script, re.M)
