"""Tests that embed their expected values never share a process with the program they test (trap 20)."""

import pytest

ANSWER = "def f(x):\n    return x + 1\n"
CHECK = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(41) == 42\ncheck(f)\n"


@pytest.mark.parametrize(
    ("program", "tests", "passed"),
    [
        (ANSWER, CHECK, True),
        ("def f(x):\n    return x\n", CHECK, False),
        ("def g(x):\n    return x + 1\n", CHECK, False),
        ("def f(x):\n    raise SystemExit(0)\n", CHECK, False),
        ("import os\ndef f(x):\n    os._exit(0)\n", CHECK, False),
        ("raise SystemExit(0)\n", CHECK, False),
        ("def f(", CHECK, False),
        ("if __name__ == '__main__':\n    input()\n" + ANSWER, CHECK, True),
        ("print('noise')\n" + ANSWER, CHECK, True),
        # Objects that lie when they are compared.
        ("class E:\n    __eq__ = lambda a, b: True\ndef f(x):\n    return E()\n", CHECK, False),
        ("class E(int):\n    __eq__ = lambda a, b: True\ndef f(x):\n    return E(0)\n", CHECK, False),
        ("class E(list):\n    __eq__ = lambda a, b: True\ndef f(x):\n    return E()\n", "assert f(1) == [1]", False),
        # Replaced builtins and modules are replaced for the program alone.
        (
            "import builtins\nbuiltins.sorted = lambda x: [1]\ndef f(x):\n    return x\n",
            "assert sorted(f([2])) == [1]",
            False,
        ),
        ("class AssertionError(Exception): pass\ndef f(x):\n    return 0\n", CHECK, False),
        # Shared state of the calls of one program.
        ("n = 0\ndef f(x):\n    global n\n    n += 1\n    return n\n", "assert f(0) == 1\nassert f(0) == 2", True),
        # Exact types arrive.
        ("def f(x):\n    return {1: (2, {3})}\n", "assert f(0) == {1: (2, {3})}", True),
        ("def f(x):\n    return [1]\n", "assert f(0) == (1,)", False),
        ("def f(x):\n    return 10 ** 40\n", "assert f(0) == 10 ** 40", True),
        (
            "def f(x):\n    raise ValueError('no')\n",
            "try:\n    f(0)\nexcept ValueError:\n    pass\nelse:\n    assert 0",
            True,
        ),
        # A program changes what it was given.
        ("def f(x):\n    x.append(1)\n", "a = []\nf(a)\nassert a == [1]", True),
        ("def f(x):\n    x.sort()\n", "a = [2, 1]\nf(a)\nassert a == [2, 1]", False),
        # Generators, instances and functions stay where they are and are reached.
        ("def f(x):\n    yield from range(x)\n", "assert list(f(3)) == [0, 1, 2]", True),
        (
            "class Node:\n    def __init__(self, v):\n        self.v, self.left = v, None\n"
            "def f(n):\n    return n.v + (f(n.left) if n.left else 0)\n",
            "root = Node(1)\nroot.left = Node(2)\nassert f(root) == 3\nassert root.left.v == 2",
            True,
        ),
        ("def f(g, x):\n    return g(x)\n", "assert f(lambda v: v * 2, 4) == 8", True),
        ("def f(x, kind):\n    return kind(x)\n", "assert f('3', int) == 3", True),
        ("def sum(a, b):\n    return a * b\n", "assert sum(3, 4) == 12", True),
    ],
)
def test_verdicts(box, run, program, tests, passed):
    names = ["sum"] if "def sum" in program else ["f"]
    assert run(box.run_tests(program, tests, names=names)).passed is passed


def test_the_benchmark_s_own_names_win_over_the_program_s(box, run):
    setup = "def helper(x):\n    return x * 2\ndef f(x):\n    'To be written.'\n"
    tests = "assert f(helper(2)) == 5"
    assert run(box.run_tests("def helper(x):\n    return 0\n" + ANSWER, tests, setup=setup, names=["f"])).passed


SEARCH = """
import os
def f(x):
    found = []
    for name in os.listdir('/proc'):
        if not name.isdigit():
            continue
        for part in ('mem', 'fd', 'environ', 'cmdline', 'maps'):
            try:
                path = f'/proc/{name}/{part}'
                if part == 'fd':
                    for one in os.listdir(path):
                        file = os.readlink(f'{path}/{one}')
                        if name != str(os.getpid()) and file.startswith(('pipe', 'socket', '/memfd')):
                            found.append(file)
                elif part == 'mem':
                    with open(f'/proc/{name}/maps') as maps, open(path, 'rb') as memory:
                        for line in maps:
                            low, high = (int(end, 16) for end in line.split()[0].split('-'))
                            try:
                                memory.seek(low)
                                data = memory.read(high - low)
                                at = data.find(b'EXPECTED_')  # this very needle is followed by no digit
                                while at >= 0:
                                    if data[at + 9 : at + 10].isdigit():
                                        found.append(line)
                                    at = data.find(b'EXPECTED_', at + 1)
                            except (OSError, ValueError, OverflowError):
                                pass
                elif b'EXPECTED_' in open(path, 'rb').read() and part != 'cmdline':
                    found.append(path)
            except OSError:
                pass
    return found
"""


def test_expected_values_are_nowhere_to_be_found(box, run):
    """Not in the memory of the program's own process, nor in any that it can read, nor in the process after it."""
    tests = "secret = 'EXPECTED_31337'\nassert f(1) == [], f(1)"
    for _ in range(2):  # the second program would find what the first grading had left
        result = run(box.run_tests(SEARCH, tests, names=["f"]))
        assert result.passed, result.stderr


def test_a_program_cannot_reach_the_tests_through_a_function_it_is_given(box, run):
    program = (
        "def f(g):\n    try:\n        return repr(g.__globals__)\n    except Exception:\n        return 'refused'\n"
    )
    assert run(box.run_tests(program, "assert f(lambda: 0) == 'refused'", names=["f"])).passed


@pytest.mark.parametrize(
    "write",
    [
        "os.write(3, b'\\0\\0\\0\\x0f[\"answer\",2,[]]')",
        "os.write(3, b'\\xff' * 64)",
        "[os.write(n, b'{\"passed\": true}\\n') for n in range(1, 9)]",
        "os.close(3)",
        "os.kill(os.getppid(), 9)",
        "os.kill(-1, 9)",
    ],
)
def test_a_program_that_writes_to_its_pipe_or_kills_its_judge_gains_nothing(box, run, write):
    program = f"import os\ndef f(x):\n    try:\n        {write}\n    except OSError:\n        pass\n    return 0\n"
    assert not run(box.run_tests(program, "assert f(1) == 31337", names=["f"])).passed
    assert run(box.run_tests(ANSWER, CHECK, names=["f"])).passed


def test_a_call_that_never_ends_is_a_timeout(backend, run):
    from verigym.envs.code.box import ProgramBox, RunLimits

    box = ProgramBox(backend, limits=RunLimits(cpu_s=0.5))
    for body in ("while True: pass", "import time; time.sleep(60)"):
        result = run(box.run_tests(f"def f(x):\n    {body}\n", CHECK, names=["f"]))
        assert (result.status, result.passed) == ("timeout", False)
