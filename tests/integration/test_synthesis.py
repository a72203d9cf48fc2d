"""``verigym tasks`` from a folder of code to tasks that hold, in real sandboxes."""

import argparse
import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from verigym.envs.cli import tasks as cli
from verigym.envs.registry.opening import read_any_tasks
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.sandbox.types import SandboxBackend
from verigym.envs.swe.grading import grade_patch
from verigym.envs.synthesis.ledger import reasons_of
from verigym.envs.synthesis.make import synthesize_tree
from verigym.envs.synthesis.small_repositories import write_small_repository
from verigym.envs.synthesis.sources import Source, tree_source
from verigym.errors import ConfigError, SandboxError, TaskError


@pytest.fixture(scope="module")
def backend() -> SandboxBackend:
    try:
        return make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no local sandbox on this machine: {error}")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    tree = tmp_path_factory.mktemp("source") / "small"
    write_small_repository(tree, seed=3, held_out=False)
    return tree_source(tree, name="small", version="0", requirements=(f"pytest=={pytest.__version__}",))


def synthesize(
    source: Source, backend: SandboxBackend, out: Path, *, limit: int, workers: int, seed: int = 0, **more: Any
) -> list[dict]:
    settings = {"seed": seed, "backend": backend, "workers": workers, "suite_s": 0.0, "stage_s": 3600.0, **more}
    return asyncio.run(synthesize_tree(source, out=out, limit=limit, **settings))


def interrupt(source: Source, backend: SandboxBackend, out: Path) -> list[tuple[str, int, int]]:
    """Stop as Ctrl-C does when the first of two tasks is there; what was told until then."""
    told = []

    def tell(what: str, done: int, total: int) -> None:
        told.append((what, done, total))
        if (done, total) == (1, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(source, backend, out, limit=2, workers=1, progress=tell)
    return told


def verigym(*words: str) -> int:
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    args = parser.parse_args(words)
    return args.run(args)


def test_from_code_to_tasks_that_hold(
    source: Source,
    backend: SandboxBackend,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(
        "verigym.envs.synthesis.sources.pinned_requirements", lambda runtime, testing, leave_out: source.requirements
    )
    out = tmp_path / "one" / "tasks.jsonl"
    limits = ("--limit", "2", "--workers", "2", "--suite-budget", "0", "--stage-timeout", "3600")
    assert verigym("tasks", "synthesize", str(source.root), "--out", str(out), *limits) == 0
    assert f"pytest=={pytest.__version__}" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 2
    assert [task.id for task in read_any_tasks(out)] == [row["instance_id"] for row in rows]
    assert len(list((out.parent / "tasks.archives").iterdir())) == 2
    assert sorted(path.name for path in out.parent.iterdir()) == ["tasks.archives", "tasks.jsonl", "tasks.jsonl.done"]

    # The same rows and bytes again, whatever the number of workers, after an interruption.
    again = tmp_path / "two" / "tasks.jsonl"
    told = interrupt(source, backend, again)
    assert any(what.startswith("running the tests") and total == 3600 for what, _, total in told)
    assert again.read_text() == json.dumps(rows[0]) + "\n"
    ledger = again.with_name("tasks.jsonl.done")
    with ledger.open("a") as file:
        file.write('{"bug": "half a li')  # killed while it wrote
    with pytest.raises(ConfigError, match="--seed was 0 and is 1"):
        synthesize(source, backend, again, limit=2, workers=1, seed=1)
    told = []
    assert synthesize(source, backend, again, limit=2, workers=1, progress=lambda *now: told.append(now)) == rows
    assert not any(what.startswith("running the tests") for what, _, _ in told)
    assert again.read_text() == out.read_text().replace("one/", "two/")
    keys = [json.loads(line)["bug"] for line in ledger.read_text().splitlines()[1:]]
    assert len(keys) == len(set(keys))
    entries = [json.loads(line) for line in ledger.read_text().splitlines()[1:]]
    assert all((entry["row"] is None) == bool(entry["reason"]) for entry in entries)
    archives = [row["archive"] for row in rows]
    assert all((again.parent / one).read_bytes() == (out.parent / one).read_bytes() for one in archives)
    # An archive that is gone is made again, and nothing that came after it stands in for it.
    (again.parent / archives[0]).unlink()
    assert synthesize(source, backend, again, limit=1, workers=1) == rows[:1]
    assert (again.parent / archives[0]).read_bytes() == (out.parent / archives[0]).read_bytes()

    # A row whose gold patch does nothing is named and left out.
    bad = {**rows[0], "instance_id": "bad", "patch": ""}
    out.write_text("".join(json.dumps(row) + "\n" for row in (*rows, bad)))
    kept = tmp_path / "kept.jsonl"
    assert verigym("tasks", "validate", str(out), "--out", str(kept), "--times", "1") == 0
    said = capsys.readouterr().out
    assert "left out: bad" in said
    assert [task.id for task in read_any_tasks(kept)] == [row["instance_id"] for row in rows]

    assert verigym("tasks", "show", str(kept)) == 0
    assert verigym("tasks", "show", str(kept), rows[0]["instance_id"]) == 0
    assert rows[0]["problem_statement"] in capsys.readouterr().out
    with pytest.raises(TaskError, match="did you mean small-0__"):
        verigym("tasks", "show", str(kept), rows[0]["instance_id"] + "x")


def test_a_tree_with_a_test_that_sees_nothing(backend: SandboxBackend, tmp_path: Path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "blind.py").write_text("def f():\n    return 1 + 1\n")
    (tmp_path / "tree" / "test_blind.py").write_text("from blind import f\ndef test_a(): f()\ndef test_b(): f()\n")
    requirements = (f"pytest=={pytest.__version__}",)
    source = tree_source(tmp_path / "tree", name="blind", version="1", requirements=requirements)
    assert synthesize(source, backend, tmp_path / "out.jsonl", limit=1, workers=1) == []
    assert set(reasons_of(tmp_path / "out.jsonl")) == {"no test fails"}


LONG = """\
import time
import pytest
from sums import total

@pytest.mark.parametrize("n", range(90))
def test_total(n):
    assert total(n, 1) == n + 1

@pytest.mark.parametrize("n", range(90))
def test_times(n):
    assert n * 2 == n + n

def test_slow():
    time.sleep(60)
"""


def test_a_long_suite_is_graded_by_its_share(backend: SandboxBackend, tmp_path: Path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "sums.py").write_text("def total(a, b):\n    return a + b if a != 40 else 41\n")
    (tmp_path / "tree" / "test_sums.py").write_text(LONG)
    requirements = (f"pytest=={pytest.__version__}",)
    source = tree_source(tmp_path / "tree", name="sums", version="1", requirements=requirements)
    (row,) = synthesize(source, backend, tmp_path / "out.jsonl", limit=1, workers=1, suite_s=1.0)
    named = {test for key in ("FAIL_TO_PASS", "PASS_TO_PASS") for test in json.loads(row[key])}
    assert (row["test_share"]["collected"], row["test_share"]["files"]) == (181, 1)
    assert len(named) <= row["test_share"]["chosen"] < 181
    (task,) = read_any_tasks(tmp_path / "out.jsonl")
    for patch, value in ((row["patch"], 1.0), ("", 0.0)):
        score, report = asyncio.run(grade_patch(backend, task, patch, timeout_s=600.0))
        assert (score.value, set(report.statuses) <= named) == (value, True)


def test_the_command_line_module_loads_nothing_heavy():
    heavy = "{'rich', 'torch', 'hypothesis', 'swebench', 'verigym.envs.synthesis.make'}"
    program = f"import sys, verigym.envs.cli.tasks; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
