"""Terminal-Bench 2 from its repository: a stand-in of one task, fetched by its commit."""

import subprocess

import pytest

from verigym.errors import ConfigError
from verigym.evals.suites import terminal_bench
from verigym.evals.suites.loading import load_suite

TASK = {
    "task.toml": '[environment]\ndocker_image = "someone/fix:1"\nmemory = "2G"\n[agent]\ntimeout_sec = 900.0\n',
    "instruction.md": "Fix it.\n",
    "tests/test.sh": "#!/bin/bash\necho 1 > /logs/verifier/reward.txt\n",
}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """(clone, commit), which the suite takes for the published ones."""
    clone = tmp_path / "clone"
    for name, text in TASK.items():
        (clone / "fix" / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / "fix" / name).write_text(text)
    git = ["git", "-C", clone, "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "tasks"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(terminal_bench, "REPOSITORY", str(clone))
    monkeypatch.setattr(terminal_bench, "COMMIT", commit)
    monkeypatch.setenv("VERIGYM_CACHE", str(tmp_path / "cache"))
    return clone, commit


def test_the_tasks_are_fetched_once(repository, tmp_path):
    clone, commit = repository
    first = load_suite("terminal_bench_2")
    assert [(task.id, task.prompt, task.image) for task in first.tasks] == [("fix", "Fix it.\n", "someone/fix:1")]
    clone.rename(tmp_path / "gone")
    assert load_suite("terminal_bench_2").tasks == first.tasks
    folder = tmp_path / "cache/terminal-bench-2"
    assert ([one.name for one in folder.iterdir()], (folder / commit / ".git").exists()) == ([commit], False)


def test_a_clone_is_taken_as_it_is(repository):
    assert [task.id for task in load_suite("terminal_bench_2", data=repository[0]).tasks] == ["fix"]


def test_where_it_cannot_be_fetched_nothing_is_left(repository, tmp_path):
    repository[0].rename(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"cannot be brought from .*give the folder with --data FOLDER"):
        load_suite("terminal_bench_2")
    assert list((tmp_path / "cache/terminal-bench-2").iterdir()) == []


def test_a_host_that_is_none_or_means_nothing_is_refused(repository, capsys):
    from verigym.__main__ import main

    assert main(["eval", "terminal_bench_2", "--allow-host", "10.0.0.7"]) == 2
    assert "'10.0.0.7' is no host of an allow-list" in capsys.readouterr().err
    rows = repository[0].parent / "rows.jsonl"
    rows.write_text('{"id": "1", "problem": "1 + 1?", "answer": "2"}\n')
    assert main(["eval", "math500", "--data", str(rows), "--allow-host", "pypi.org"]) == 2
    assert "--allow-host is of tasks that may have a network" in capsys.readouterr().err
