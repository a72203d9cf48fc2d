"""Where no control group can be had, as for an ordinary user of most machines, programs run as they do elsewhere."""

import pytest

from verigym.envs.code.box import ProgramBox
from verigym.envs.sandbox import control_group

PROGRAM = "import sys\nprint(sys.stdin.read().upper(), end='')\nprint('beside', file=sys.stderr)"


@pytest.fixture
def ungrouped(backend, monkeypatch):
    monkeypatch.setattr(control_group, "make", lambda *limits: None)
    return ProgramBox(backend)


def test_programs_run(ungrouped, run):
    async def runs():
        try:
            [printed] = await ungrouped.run_stdin(PROGRAM, ["abc" * 40_000])
            [called] = await ungrouped.run_calls("def double(x): return 2 * x", "double", [[21]])
            tests = [f"assert double(2) == {expected}" for expected in (4, 5)]
            tested = [await ungrouped.run_tests("def double(x): return 2 * x", one) for one in tests]
            return printed, called, tested
        finally:
            await ungrouped.aclose()

    printed, called, tested = run(runs())
    assert (printed.stdout, printed.stderr) == ("ABC" * 40_000, "beside\n")
    assert called.value == 42
    assert [one.passed for one in tested] == [True, False]


def test_files_in_memory_are_refused_to_programs(ungrouped, run):
    async def runs():
        try:
            return await ungrouped.run_stdin("import os\nos.memfd_create('x')", [""])
        finally:
            await ungrouped.aclose()

    [told] = run(runs())
    assert "Function not implemented" in told.stderr
