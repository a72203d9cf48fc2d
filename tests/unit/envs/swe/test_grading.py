"""Grading in fresh sandboxes, and the runner's report."""

import asyncio
from dataclasses import replace

import pytest

from verigym.envs.datasets.swe import row_of
from verigym.envs.sandbox.python import python_environment
from verigym.envs.sandbox.types import Limits, SandboxSpec
from verigym.envs.swe.checkout import DEFAULT_REQUIREMENTS, checkout, placed
from verigym.envs.swe.grading import grade_patch, steers_tests
from verigym.envs.swe.patching import apply_patch
from verigym.envs.swe.testing import run_tests
from verigym.errors import GradingError, TaskError
from verigym.rewards.swe import grade_tests

from .conftest import GOLD

WORKDIR = "/workspace"

KINDS = """
import unittest

import pytest


def test_good(): assert True
def test_bad(): assert 1 == 2
@pytest.mark.parametrize("x", ["a b", "c::d"])
def test_parameters(x): assert x
@pytest.mark.xfail
def test_expected(): assert 0
@pytest.mark.xfail(strict=True)
def test_unexpected(): pass
def test_excused(): pytest.xfail("no")
@pytest.mark.skip
def test_skipped(): pass
@pytest.fixture
def broken():
    raise ValueError("in setup")
def test_setup(broken): pass
@pytest.fixture
def breaks():
    yield
    raise ValueError
def test_teardown(breaks): pass
class TestUnit(unittest.TestCase):
    def test_good(self): self.assertEqual(1, 1)
    @unittest.expectedFailure
    def test_expected(self): self.fail()
"""
STATUSES = {
    "test_good": "passed",
    "test_bad": "failed",
    "test_parameters[a b]": "passed",
    "test_parameters[c::d]": "passed",
    "test_expected": "xfailed",
    "test_unexpected": "failed",
    "test_excused": "failed",
    "test_skipped": "skipped",
    "test_setup": "error",
    "test_teardown": "error",
    "TestUnit::test_good": "passed",
    "TestUnit::test_expected": "xfailed",
}


def report_of(backend, files, tests, *, env=None, timeout_s=60.0, python=None):
    async def run():
        environment = python_environment(DEFAULT_REQUIREMENTS)
        sandbox = await backend.create(SandboxSpec(workdir=WORKDIR, binds=environment.binds))
        try:
            for path, text in files.items():
                await sandbox.write_file(f"{WORKDIR}/{path}", text.encode())
            return await run_tests(
                sandbox,
                workdir=WORKDIR,
                python=python or environment.python,
                tests=tests,
                env=env or {},
                timeout_s=timeout_s,
            )
        finally:
            await sandbox.aclose()

    return asyncio.run(run())


def test_every_kind_of_outcome_has_its_status(local_backend):
    report = report_of(local_backend, {"tests/test_kinds.py": KINDS}, ["tests/test_kinds.py"])
    assert report.statuses == {f"tests/test_kinds.py::{name}": status for name, status in STATUSES.items()}
    assert (report.complete, report.exit_code, report.canaries_ok) == (True, 1, True)
    assert report.detail == "tests/test_kinds.py::test_bad: assert 1 == 2"


def test_node_ids_choose_tests_with_all_their_parameters(local_backend):
    tests = [
        "tests/test_kinds.py::test_parameters",
        "tests/test_kinds.py::TestUnit::test_good",
        "tests/none.py::test_x",
    ]
    report = report_of(local_backend, {"tests/test_kinds.py": KINDS}, tests)
    assert sorted(test.partition("::")[2] for test in report.statuses) == [
        "TestUnit::test_good",
        "test_parameters[a b]",
        "test_parameters[c::d]",
    ]
    assert (report.complete, report.exit_code) == (True, 0)


def test_a_file_that_cannot_be_collected_is_an_error_and_the_others_run(local_backend):
    files = {"test_a.py": "import nowhere\n", "test_b.py": "def test_b(): pass\n"}
    report = report_of(local_backend, files, ["test_a.py", "test_b.py"])
    assert report.statuses == {"test_a.py": "error", "test_b.py::test_b": "passed"}
    assert (report.complete, report.exit_code) == (True, 1)


def test_the_rows_variables_reach_the_tests(local_backend):
    files = {
        "src/mod.py": "x = 1\n",
        "test_a.py": "import os, subprocess, sys, mod\n\n\ndef test_a():\n    assert os.environ['TZ'] == 'UTC'\n"
        "    said = subprocess.check_output([sys.executable, '-c', 'import mod; print(hash(mod.__name__))'])\n"
        "    assert hash('mod') == int(said)\n"
        "    assert os.environ['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] and 'PYTEST_ADDOPTS' not in os.environ\n",
        "pytest.ini": "[pytest]\naddopts = --co\npython_functions = test_a\n",
    }
    env = {"PYTHONPATH": "src", "PYTHONHASHSEED": "7", "TZ": "UTC", "PYTEST_ADDOPTS": "--co"}
    report = report_of(local_backend, files, ["test_a.py"], env=env)
    assert report.statuses == {"test_a.py::test_a": "passed"}, report.detail
    assert report.complete
    assert report.canaries_ok


def test_tests_that_hang_are_stopped_and_have_not_passed(local_backend):
    files = {"test_a.py": "import time\n\n\ndef test_a():\n    time.sleep(99)\n"}
    report = report_of(local_backend, files, ["test_a.py"], timeout_s=3.0)
    assert (report.statuses, report.complete, report.exit_code) == ({}, False, None)
    assert report.detail == "stopped: timeout"


CHANGES = {
    "import pytest\npytest.Function.runtest = lambda self: None\n": "_pytest.python.Function.runtest was replaced",
    "import functools\nfunctools.wraps = None\n": "functools.wraps was replaced",
    "open('test_a.py', 'w').write('def test_a(): pass')\n": "test_a.py was replaced",
}


@pytest.mark.parametrize("code", CHANGES)
def test_what_decides_outcomes_is_watched(local_backend, code):
    files = {"mod.py": code, "test_a.py": "import mod\n\n\ndef test_a():\n    assert True\n"}
    report = report_of(local_backend, files, ["test_a.py"])
    assert not report.canaries_ok
    assert report.detail.startswith(CHANGES[code])
    assert grade_tests(report, ["test_a.py::test_a"], []).value == 0.0


def test_an_interpreter_without_pytest_is_a_grading_error(local_backend):
    with pytest.raises(GradingError, match="pytest could not be started"):
        report_of(local_backend, {"test_a.py": "def test_a(): pass\n"}, ["test_a.py"], python="/bin/sh")


def test_missing_test_files_are_no_pass(local_backend):
    report = report_of(local_backend, {}, ["test_a.py"])
    assert not report.complete
    assert grade_tests(report, ["test_a.py::test_a"], []).value == 0.0


def test_eight_gradings_at_once_do_not_mix(vault, gold):
    """Trap 15: eight patches of one task in parallel, every second one right; then nothing at all."""
    wrong = gold.replace("a + b", "a + b + {}")

    async def grade_all():
        patches = [vault.patch({"pkg/calc.py": gold if n % 2 else wrong.format(n + 1)}) for n in range(8)]
        return await asyncio.gather(*(grade_patch(vault.backend, vault.task, patch) for patch in patches))

    results = asyncio.run(grade_all())
    assert [score.value for score, _ in results] == [0.0, 1.0] * 4
    assert vault.grade("")[0].value == 0.0


def test_a_patch_that_does_not_apply_scores_zero_and_one_with_wrong_line_numbers_applies(vault, gold):
    score, _ = vault.grade("--- a/nowhere.py\n+++ b/nowhere.py\n@@ -1 +1 @@\n-a\n+b\n")
    assert score.value == 0.0
    assert score.detail.startswith("the patch does not apply: error: nowhere.py")
    shifted = vault.patch({"pkg/calc.py": gold}).replace(" def add(a, b):\n", " def add(a, b):  # changed\n")
    assert vault.grade(shifted)[0].value == 1.0


def test_rows_whose_tests_are_no_pytest_ids_are_refused(vault):
    hidden = {**vault.task.hidden, "FAIL_TO_PASS": ["test_x (module.Class)"]}
    with pytest.raises(TaskError, match=r"'test_x \(module\.Class\)' is no pytest id"):
        asyncio.run(grade_patch(vault.backend, replace(vault.task, hidden=hidden), ""))


def test_what_steers_tests(vault):
    row = row_of(vault.task)
    steering = "conftest.py a/pytest.ini tox.ini setup.cfg pyproject.toml sitecustomize.py a/b.pth a/c.pyc"
    steering += " tests/data/x.json pkg/tests/a.py test_a.py pkg/a_test.py pkg/tests.py tests"
    assert [path for path in steering.split() if not steers_tests(path, row)] == []
    free = "pkg/calc.py src/_pytest/runner.py docs/testing.md latest/a.py pkg/contest.py setup.py"
    assert [path for path in free.split() if steers_tests(path, row)] == []
    touching = row.model_copy(update={"patch": "--- a/django/test/client.py\n+++ b/django/test/client.py\n"})
    assert not steers_tests("django/test/client.py", touching)
    assert steers_tests("django/test/other.py", touching)


def test_git_is_out_of_reach_of_a_patch(vault):
    """A path into .git is refused by git, and what GNU patch takes in its place finds no .git."""

    async def apply(patch):
        row = placed(row_of(vault.task), vault.backend)
        async with checkout(vault.backend, row, limits=Limits()) as sandbox:
            problem, _ = await apply_patch(sandbox, patch, root=row.root)
            return problem, (await sandbox.aexec("cat .git/config; ls -a pkg")).output

    patch = vault.patch({"pkg/new.py": "x = 1\n"}).replace("pkg/new.py", ".git/hooks/x").split("\n", 2)[2]
    problem, seen = asyncio.run(apply(patch))
    assert problem is not None or "hooks" not in seen
    problem, seen = asyncio.run(apply("--- a/.git/config\n+++ b/.git/config\n@@ -1 +1,2 @@\n [core]\n+\tx = 1\n"))
    assert problem is not None
    assert "x = 1" not in seen


def test_what_cython_puts_in_the_place_of_inspects_own_is_no_forgery(vault):
    """Every module that it compiled does so when it is imported."""
    patched = "import inspect\n\ninspect.isgenerator = lambda one, real=inspect.isgenerator: real(one)\n\n\n"
    score, _ = vault.grade({"pkg/calc.py": patched + GOLD})
    assert score.value == 1.0, score.detail
