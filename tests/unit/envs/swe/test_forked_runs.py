"""Tests that run in a fork of the process that collected them see and do what they would in a process of their own."""

import asyncio

import pytest

from verigym.envs.sandbox.loaded import FIRST_AT, nursery_with
from verigym.envs.sandbox.python import python_environment
from verigym.envs.sandbox.types import SandboxSpec
from verigym.envs.swe.checkout import DEFAULT_REQUIREMENTS
from verigym.envs.swe.testing import TestRun, execute, execute_and_doubt, loaded

from .started_and_forked import BEARS_NO_FORK, REPOSITORIES

WORKDIR = "/workspace"
ENV = {"PYTHONPATH": "src:.", "PYTHONHASHSEED": "5", "TZ": "UTC-3", "MINE": "a b"}
PID = "import os\n\n\ndef test_a():\n    open('parent', 'w').write(str(os.getppid()))\n"
READ = 'ls -A facts . ; for f in facts/*; do echo "$f"; cat "$f"; done; ps -e -o args= | grep -c \'[s]leep 300\''


def seen(backend, files, *, forked, ahead=None):
    """(the report, what the tests have noted and left, whether they could have been run again in their process).

    Args:
        ahead: the runner, to be loaded before the sandbox begins.
    """

    async def run():
        environment = python_environment(DEFAULT_REQUIREMENTS)
        sandbox = await backend.create(SandboxSpec(workdir=WORKDIR, binds=environment.binds, loaded=ahead))
        asked = []
        try:
            for path, text in files.items():
                await sandbox.write_file(f"{WORKDIR}/{path}", text.encode())
            tests = tuple(path for path in files if path.rpartition("/")[2].startswith("test_a")) or ("test_a.py",)
            what = TestRun(workdir=WORKDIR, python=environment.python, tests=tests, env=ENV)
            if forked:
                report, _ = await execute_and_doubt(sandbox, what, asked.append, timeout_s=300)
            else:
                report = await execute(sandbox, what, timeout_s=300)
            noted = (await sandbox.aexec(READ, timeout_s=300)).output
        finally:
            await sandbox.aclose()
        return report, noted, bool(asked)

    return asyncio.run(run())


def compare(backend, files, *, bears=True, ahead=None):
    one, told, _ = seen(backend, files, forked=False)
    other, told_too, asked = seen(backend, files, forked=True, ahead=ahead)
    assert told_too == told
    broken = one.detail.startswith(("the process ended early", "something else wrote"))
    agreed = {"exit_code"} if one.detail.startswith("something") else set()  # drawn for each run
    for name in {"statuses", "complete", "exit_code", "canaries_ok", "detail", "strange"} - agreed:
        assert getattr(other, name) == getattr(one, name), name
    assert asked is (bears and not broken and not one.detail.startswith("none of"))


@pytest.mark.parametrize("name", ["facts", "conftest", "left behind"])
def test_a_forked_run_is_a_started_one(local_backend, name):
    compare(local_backend, REPOSITORIES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in REPOSITORIES if name not in ("facts", "conftest", "left behind")])
def test_every_forked_run_is_a_started_one(local_backend, name):
    compare(local_backend, REPOSITORIES[name])


@pytest.fixture(scope="module")
def ahead(local_backend):
    """The runner loaded ahead, in a backend that has a process with it."""
    python = python_environment(DEFAULT_REQUIREMENTS).python
    seen(local_backend, REPOSITORIES["conftest"], forked=False)
    program = loaded(python)
    assert program is not None
    assert "argparse" in program.imports
    for _ in range(FIRST_AT):
        found = nursery_with(program)
    if found is None or local_backend.launcher != "fork" or local_backend.user_namespace:
        pytest.skip("sandboxes are started here by a user, or their interpreter runs more than itself at its start")
    return program


def test_a_run_that_is_loaded_ahead_is_what_was_there_before(local_backend, ahead):
    async def run():
        binds = python_environment(DEFAULT_REQUIREMENTS).binds
        sandbox = await local_backend.create(SandboxSpec(workdir=WORKDIR, binds=binds, loaded=ahead))
        try:
            await sandbox.write_file("test_a.py", PID.encode())
            listed = [(await sandbox.arun(["ps", "-e", "-o", "pid=,args="])).stdout.decode()]
            what = TestRun(workdir=WORKDIR, python=ahead.python, tests=("test_a.py",))
            await execute(sandbox, what, timeout_s=300)
            parent = (await sandbox.read_file("parent")).decode()
            return [line.split()[0] for line in listed[0].splitlines() if ahead.package in line], parent
        finally:
            await sandbox.aclose()

    waiting, parent = asyncio.run(run())
    assert waiting[0] == "1"
    assert parent in waiting[1:]


@pytest.mark.parametrize("name", ["facts", "conftest", "left behind"])
def test_a_run_that_is_loaded_ahead_is_a_started_one(local_backend, name, ahead):
    compare(local_backend, REPOSITORIES[name], ahead=ahead)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*REPOSITORIES, *BEARS_NO_FORK])
def test_every_run_that_is_loaded_ahead_is_a_started_one(local_backend, name, ahead):
    files = {**REPOSITORIES, **BEARS_NO_FORK}[name]
    compare(local_backend, files, bears=name not in BEARS_NO_FORK, ahead=ahead)


@pytest.mark.slow
@pytest.mark.parametrize("name", BEARS_NO_FORK)
def test_what_bears_no_fork_is_not_forked(local_backend, name):
    compare(local_backend, BEARS_NO_FORK[name], bears=False)


def test_there_are_forty_of_them():
    assert len(REPOSITORIES) + len(BEARS_NO_FORK) >= 40
