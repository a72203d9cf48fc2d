"""Trap 20: solution and expected outputs never share a process, the comparison is strict, ordinary programs work."""

import asyncio
import json
import time
import warnings

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import verigym.envs  # noqa: F401
from verigym.envs.code.box import ProgramBox, RunLimits
from verigym.envs.code.env import BUILT_IN, CodeEnv
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.sandbox.types import ProcessResult
from verigym.envs.task import Task
from verigym.errors import GradingError, SandboxError, TaskError
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import ToolCall


@pytest.fixture(scope="module")
def backend():
    try:
        return make_backend("local")
    except SandboxError as error:
        pytest.skip(f"no sandbox works here: {error}")


def stdin_task(*tests: tuple[str, str], **hidden) -> Task:
    rows = [{"input": text, "output": output} for text, output in tests]
    return Task(id="t", family="code", prompt="?", hidden={"tests": rows, "time_limit_s": 1.0, **hidden})


def call_task(*tests: tuple[list, object]) -> Task:
    rows = [{"args": arguments, "expected": expected} for arguments, expected in tests]
    return Task(id="t", family="code", prompt="?", hidden={"fn_name": "f", "tests": rows, "time_limit_s": 1.0})


def grade(backend, task: Task, program: str):
    env = CodeEnv(sandbox=backend)
    env.reset(options={"task": task})
    *_, terminated, truncated, info = env.step(f"```python\n{program}\n```")
    assert (terminated, truncated, info["ending"]) == (True, False, "answered")
    return info["score"]


def test_it_is_a_gymnasium_environment(backend):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("verigym/Code-v0", sandbox=backend).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("task", BUILT_IN, ids=lambda task: task.id)
def test_gold_scores_one_and_empty_zero(backend, task):
    env = CodeEnv(sandbox=backend)
    for messages, value in ((env.gold(task), 1.0), (env.empty(task), 0.0)):
        env.reset(options={"task": task})
        assert env.step(messages[0].content)[1] == value


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("import sys\nprint(sys.stdin.buffer.readline().decode().strip())", "3"),
        ("total = 0\ndef add(n):\n    global total\n    total += n\nadd(int(input()))\nprint(total)", "3"),
        ("if __name__ == '__main__':\n    print(input())", "3"),
        (
            "import sys\nsys.setrecursionlimit(10**6)\ndef f(n):\n    return n and 1 + f(n - 1)\nprint(f(50000))",
            "50000",
        ),
        ("print(len(str(7 ** 20000)))", "16902"),
        ("import threading\nthreading.stack_size(2**26)\nthreading.Thread(target=lambda: print(3)).start()", "3"),
        ("import atexit\natexit.register(print, 3)", "3"),
        ("print(open(0).read().split()[0])", "3"),
        ("import sys\nprint(3)\nsys.exit()", "3"),
        ("import os\nprint(3, flush=True)\nos._exit(0)", "3"),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\nprint(P(3).x)", "3"),
    ],
)
def test_ordinary_programs_work(backend, program, printed):
    assert grade(backend, stdin_task(("3\n4\n", printed)), program).passed


@pytest.mark.parametrize(
    "program",
    [
        "import os\nos._exit(0)",
        "while True:\n    pass",
        "import os\nwhile True:\n    os.fork()",
        "while True:\n    print('3' * 1000)",
        "x = bytearray(10 ** 11)\nprint(3)",
        "import os\nos.kill(os.getppid(), 9)",
        "import os\nos.kill(-1, 9)",
        "print(3, flush=True)\nwhile True:\n    pass",
        "import sys\nprint(3)\nsys.exit(1)",
        "print(3)\nraise ValueError",
        "import subprocess\nprint(4)",
        "def (",
        "",
    ],
)
def test_wrong_and_hostile_programs_fail_in_time(backend, program):
    before = time.monotonic()
    score = grade(backend, stdin_task(("1\n", "3\n")), program)
    assert (score.value, score.passed, score.breakdown["tests"]) == (0.0, False, 0.0)
    assert time.monotonic() - before < 60
    # Nothing of it is left to disturb the next grading.
    assert grade(backend, stdin_task(("1\n", "3\n")), "print(3)").passed


def test_embedded_tests_whose_program_never_ends_fail(backend):
    hidden = {"test_code": "assert f(1) == 2", "names": ["f"], "time_limit_s": 0.5}
    task = Task(id="t", family="code", prompt="?", hidden=hidden)
    assert grade(backend, task, "def f(x):\n    return x + 1").passed
    score = grade(backend, task, "def f(x):\n    while True:\n        pass")
    assert (score.value, score.passed) == (0.0, False)
    assert "the tests failed" in score.detail


def test_a_program_that_forges_its_runner_gains_nothing(backend):
    """Whatever it writes to the pipe of the process that starts it, the expected output is not to be found there."""
    forged = json.dumps({"status": "ok", "stdout": "guess", "stderr": ""})
    program = f"import os\nwith open(f'/proc/{{os.getppid()}}/fd/1', 'w') as out:\n    out.write({forged!r} + chr(10))"
    assert not grade(backend, stdin_task(("1\n", "31337\n")), program).passed


def test_expected_outputs_are_nowhere_in_the_sandbox(backend):
    """A program that reads the memory of the process that starts it, and every file, does not find them."""
    program = (
        "import os\nfound = []\ntry:\n    maps = open(f'/proc/{os.getppid()}/maps').read().splitlines()\n"
        "    memory = open(f'/proc/{os.getppid()}/mem', 'rb')\n    for line in maps:\n"
        "        low, high = (int(x, 16) for x in line.split()[0].split('-'))\n"
        "        try:\n            memory.seek(low)\n            data = memory.read(high - low)\n"
        "        except (OSError, ValueError, OverflowError):\n            continue\n"
        "        at = data.find(b'SECRET' + b'_')\n        if at >= 0:\n            found.append(data[at:at + 16])\n"
        "except OSError:\n    pass\nprint(found)\n"
    )
    score = grade(backend, stdin_task(("1\n", "SECRET_31337\n")), program + "print('SECRET' + '_')")
    assert not score.passed
    assert grade(backend, stdin_task(("1\n", "[]\n")), program).passed


@pytest.mark.parametrize(
    ("program", "expected", "passed"),
    [
        ("def f(x):\n    return x + 1", 2, True),
        ("class Solution:\n    def f(self, x):\n        return (x, {'a': 10**40})", [1, {"a": 10**40}], True),
        ("def f(x):\n    print('noise')\n    return 2.0", 2, True),
        ("def f(x):\n    return True", 1, False),
        ("def f(x):\n    return '2'", 2, False),
        ("class E:\n    __eq__ = lambda a, b: True\ndef f(x):\n    return E()", 2, False),
        ("class I(int):\n    __eq__ = lambda a, b: True\ndef f(x):\n    return I(5)", 2, False),
        ("import json\njson.dumps = lambda *a, **k: '2'\ndef f(x):\n    return 3", 2, False),
        ("import os\ndef f(x):\n    os._exit(0)", None, False),
        ("def f(x):\n    return [f] * 3", [None] * 3, False),
        ("def f(x):\n    x = []\n    x.append(x)\n    return x", [], False),
        ("def g(x):\n    return 2", 2, False),
    ],
)
def test_functions_return_plain_data(backend, program, expected, passed):
    assert grade(backend, call_task(([1], expected)), program).passed is passed


def test_every_test_counts_and_has_a_process_of_its_own(backend):
    task = stdin_task(("1\n", "2\n"), ("2\n", "3\n"), ("3\n", "9\n"), time_limit_s=2.0)
    score = grade(
        backend,
        task,
        "import builtins\nassert not hasattr(builtins, 'seen')\nbuiltins.seen = 1\nprint(int(input()) + 1)",
    )
    assert score.breakdown == {"passed": 0.0, "tests": 2 / 3}
    assert "test 2: wrong answer" in score.detail


def test_parallel_gradings_do_not_meet(backend):
    """Eight programs for one task at once: eight right verdicts; what one writes no other finds."""
    task = stdin_task(("1\n", "0\n"))

    async def one(number: int) -> bool:
        env = CodeEnv(sandbox=backend)
        await env.areset(options={"task": task})
        program = f"import os\nprint({number} % 2 + sum(os.path.exists(f'/tmp/{{i}}') for i in range(8)))\n"
        program += f"open('/tmp/{number}', 'w').close()"
        *_, info = await env.astep(f"```python\n{program}\n```")
        return info["score"].passed

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(one(number) for number in range(8)))

    assert asyncio.run(all_of_them()) == [True, False] * 4


def test_the_tool_runs_programs_and_says_what_went_wrong(backend):
    env = CodeEnv(sandbox=backend, tools=True)
    _, info = env.reset(options={"task": stdin_task(("1\n", "2\n"))})
    assert [spec.name for spec in info["tools"]] == ["run"]

    def run(**arguments) -> str:
        return env.step(encode_calls([ToolCall(name="run", arguments=arguments)]))[0]

    assert run(code="print(input() * 2)", stdin="ab\n") == "abab"
    assert run(code="1/0").endswith("ZeroDivisionError: division by zero")
    assert "time limit" in run(code="while True: pass")
    assert len(run(code="print('x' * 100_000)")) < 5000
    assert run(code="") == "(no output)"
    assert env.step("```python\nprint(2)\n```")[1] == 1.0


def test_without_tools_none_are_announced(backend):
    assert CodeEnv(sandbox=backend).reset()[1]["tools"] == ()


@pytest.mark.parametrize(
    "hidden", [{}, {"tests": []}, {"tests": [{"input": "x"}]}, {"fn_name": "f", "tests": [{"input": ""}]}]
)
def test_a_task_without_tests_is_refused(backend, hidden):
    with pytest.raises(TaskError, match="hidden\\['tests'\\]"):
        CodeEnv(sandbox=backend).reset(options={"task": Task(id="t", family="code", prompt="", hidden=hidden)})


class BrokenSandbox:
    """Cannot start a process, or has no Python."""

    def __init__(self, error: Exception | None) -> None:
        self.name, self.error, self.closed = "broken", error, 0

    async def create(self, spec):
        return self

    async def astart(self, argv, **kwargs):
        if self.error is not None:
            raise self.error
        return self

    def write(self, data: bytes) -> None:
        pass

    async def read(self) -> bytes:
        return b""

    async def wait(self) -> ProcessResult:
        return ProcessResult(stdout=b"", stderr=b"not found", exit_code=127)

    async def aclose(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(("error", "raised"), [(SandboxError("gone"), SandboxError), (None, GradingError)])
def test_trouble_with_the_sandbox_is_never_a_score(error, raised):
    """Trap 18."""
    broken = BrokenSandbox(error)
    env = CodeEnv(sandbox=broken)  # type: ignore[arg-type]
    env.reset(options={"task": BUILT_IN[0]})
    with pytest.raises(raised):
        env.step("```python\nprint(1)\n```")
    assert broken.closed == 1


def test_small_tests_share_one_start_of_python(backend):
    async def run() -> list[str]:
        box = ProgramBox(backend, limits=RunLimits(cpu_s=2.0))
        try:
            return [one.stdout for one in await box.run_stdin("print(input())", [str(i) for i in range(60)])]
        finally:
            await box.aclose()

    assert asyncio.run(run()) == [f"{i}\n" for i in range(60)]
