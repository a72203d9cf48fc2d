"""Tests that run in a fork of the process that collected them see and do what they would in a process of their own."""

import asyncio

import pytest

from verigym.envs.sandbox.python import python_environment
from verigym.envs.sandbox.types import SandboxSpec
from verigym.envs.swe.checkout import DEFAULT_REQUIREMENTS
from verigym.envs.swe.testing import TestRun, execute, execute_and_doubt

from .started_and_forked import BEARS_NO_FORK, REPOSITORIES

WORKDIR = "/workspace"
ENV = {"PYTHONPATH": "src:.", "PYTHONHASHSEED": "5", "TZ": "UTC-3", "MINE": "a b"}
READ = 'ls -A facts . ; for f in facts/*; do echo "$f"; cat "$f"; done; ps -e -o args= | grep -c \'[s]leep 300\''


def seen(backend, files, *, forked):
    """(the report, what the tests have noted and left, whether they could have been run again in their process)."""

    async def run():
        environment = python_environment(DEFAULT_REQUIREMENTS)
        sandbox = await backend.create(SandboxSpec(workdir=WORKDIR, binds=environment.binds))
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


def compare(backend, files, *, bears=True):
    (one, told, _), (other, told_too, asked) = (seen(backend, files, forked=way) for way in (False, True))
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


@pytest.mark.slow
@pytest.mark.parametrize("name", BEARS_NO_FORK)
def test_what_bears_no_fork_is_not_forked(local_backend, name):
    compare(local_backend, BEARS_NO_FORK[name], bears=False)


def test_there_are_forty_of_them():
    assert len(REPOSITORIES) + len(BEARS_NO_FORK) >= 40
