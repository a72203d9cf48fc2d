"""What a prelude defines is made once and used by many: each program finds it fresh."""

from verigym.envs.code.box import ProgramBox, RunLimits

PRELUDE = "import math\nnames = ['a']\n"


def test_programs_find_the_prelude_and_nothing_of_each_other(backend, run):
    box = ProgramBox(backend, limits=RunLimits(cpu_s=5.0))

    async def runs():
        changes = "names.append('b')\nmath.pi = 3\nprint(__name__, names, math.pi)"
        first = await box.run_stdin(changes, ["", ""], prelude=PRELUDE)
        second = await box.run_stdin("print(__name__, names, int(math.pi * 100))", [""], prelude=PRELUDE)
        other = await box.run_stdin("print('names' in globals(), 'math' in globals())", [""])
        return [one.stdout for one in (*first, *second, *other)]

    assert run(runs()) == ["__main__ ['a', 'b'] 3\n"] * 2 + ["__main__ ['a'] 314\n", "False False\n"]


def test_a_prelude_that_raises_fails_its_programs_and_not_the_sandbox(backend, run):
    box = ProgramBox(backend)
    (failed,) = run(box.run_stdin("print(1)", [""], prelude="raise ValueError('no')"))
    assert failed.status != "ok"


def test_any_exit_may_be_an_end_in_order(backend, run):
    box = ProgramBox(backend)
    program = "import sys\nprint(1)\nsys.exit(3)"

    async def runs():
        return [(await box.run_stdin(program, [""], any_exit=any_exit))[0].status for any_exit in (False, True)]

    assert run(runs()) == ["error", "ok"]


def test_many_tests_are_told_in_order_however_much_they_print(backend, run):
    box = ProgramBox(backend)
    inputs = [str(number) for number in range(40)]
    runs = run(box.run_stdin("n = input()\nprint(n * 5000 if int(n) % 3 else n)", inputs))
    assert [len(one.stdout) for one in runs] == [len(n) * (5000 if int(n) % 3 else 1) + 1 for n in inputs]
