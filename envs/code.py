"""``verigym/Code-v0``: write a Python program that passes hidden tests."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import TaskError
from ..model.chat.messages import Message
from ..rewards.code import compare_output, compare_value, extract_program, score_tests
from ..rewards.score import Score
from .core import ToolEnv
from .programs.box import ProgramBox, ProgramRun, RunLimits
from .sandbox.choose import make_backend
from .sandbox.types import SandboxBackend
from .task import Task
from .tools.spec import tool

TOOL_OUTPUT_CHARACTERS = 4_000


class CodeEnv(ToolEnv):
    """One problem, one program, hidden tests.

    The final message's last fenced Python block is the program (``rewards.code.extract_program``). ``task.hidden``:

    - ``tests``: ``{"input", "output"}`` each, for programs that read stdin and print; or, with ``fn_name``,
      ``{"args", "expected"}`` each, for a function (or a method of a class ``Solution``).
    - ``solution``: a right program, for ``gold``.
    - ``time_limit_s``, ``memory_mib``: of one test, processor time and address space; ``prelude``: source before it.
    """

    family = "code"
    system_prompt = "Solve the problem in Python. Give the whole program in one ```python block."

    def __init__(
        self,
        *,
        sandbox: str | SandboxBackend = "auto",
        tools: bool = False,
        limits: RunLimits | None = None,
        system_prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            sandbox: where programs run: "auto", "local", "docker", "unsafe", or a backend.
            tools: whether the policy may try programs with ``run``.
            limits: of one run, where the task states none.
            system_prompt: instead of the environment's own; "" for none.
            kwargs: as of ToolEnv.
        """
        super().__init__(**kwargs)
        self._backend = make_backend(sandbox) if isinstance(sandbox, str) else sandbox
        self._limits = limits or RunLimits()
        if system_prompt is not None:
            self.system_prompt = system_prompt  # type: ignore[misc]
        if not tools:
            self._tools = {}
        self._tools_box: ProgramBox | None = None

    def load(self) -> Sequence[Task]:
        return BUILT_IN

    def check(self, task: Task) -> None:
        _check(task)

    def start(self, task: Task) -> None:
        self._tools_box = ProgramBox(self._backend, limits=self._limits_of(task))

    @tool
    async def run(self, code: str, stdin: str = "") -> str:
        """Run a Python program and answer with what it prints.

        Args:
            code: the whole program.
            stdin: what it reads.
        """
        assert self._tools_box is not None
        (run,) = await self._tools_box.run_stdin(code, [stdin])
        return describe_run(run)

    async def score(self, task: Task, submission: Any) -> Score:
        program = extract_program(str(submission))
        tests = task.hidden["tests"]
        if not program.strip():
            return score_tests([False] * len(tests), "no program was given")
        # A box of its own: nothing that the agent's runs left can help its program.
        box = ProgramBox(self._backend, limits=self._limits_of(task))
        try:
            if "fn_name" in task.hidden:
                arguments = [test["args"] for test in tests]
                prelude = task.hidden.get("prelude", "")
                runs = await box.run_calls(program, task.hidden["fn_name"], arguments, prelude=prelude)
                passed = [
                    run.status == "ok" and run.has_value and compare_value(run.value, test["expected"])
                    for run, test in zip(runs, tests, strict=True)
                ]
            else:
                runs = await box.run_stdin(program, [test["input"] for test in tests])
                passed = [
                    run.status == "ok" and compare_output(run.stdout, test["output"])
                    for run, test in zip(runs, tests, strict=True)
                ]
        finally:
            await box.aclose()
        return score_tests(passed, _detail(passed, runs))

    async def stop(self) -> None:
        box, self._tools_box = self._tools_box, None
        if box is not None:
            await box.aclose()

    def gold(self, task: Task) -> Sequence[Message]:
        if not isinstance(task.hidden.get("solution"), str):
            raise TaskError(f"task {task.id!r} states no solution (hidden['solution'])")
        return [Message(role="assistant", content=f"```python\n{task.hidden['solution'].rstrip()}\n```")]

    def _limits_of(self, task: Task) -> RunLimits:
        hidden = task.hidden
        longest = max((len(str(test.get("output", test.get("expected")))) for test in hidden["tests"]), default=0)
        return replace(
            self._limits,
            cpu_s=float(hidden.get("time_limit_s", self._limits.cpu_s)),
            memory_mib=int(hidden.get("memory_mib", self._limits.memory_mib)),
            # A power of two, so that the limit does not tell the length of the answer.
            output_bytes=max(self._limits.output_bytes, 1 << (4 * longest).bit_length()),
        )


def describe_run(run: ProgramRun) -> str:
    """What a tool answers about a run."""
    parts = [run.stdout]
    if run.status == "timeout":
        parts.append("error: the time limit was exceeded")
    elif run.status == "output":
        parts.append("error: the output limit was exceeded")
    elif run.status == "not_run":
        parts.append("error: the program killed its interpreter")
    elif run.status == "error":
        parts.append(run.stderr or "error: the program ended with a failure")
    text = "\n".join(part.rstrip("\n") for part in parts if part.strip())
    if len(text) > TOOL_OUTPUT_CHARACTERS:
        half = TOOL_OUTPUT_CHARACTERS // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
    return text or "(no output)"


def _check(task: Task) -> None:
    tests = task.hidden.get("tests")
    keys = {"args", "expected"} if "fn_name" in task.hidden else {"input", "output"}
    listed = tests if isinstance(tests, list | tuple) else ()
    if not listed or not all(isinstance(test, Mapping) and keys <= set(test) for test in listed):
        raise TaskError(
            f"task {task.id!r}: hidden['tests'] must be a list of objects with {' and '.join(sorted(keys))}, "
            "at least one"
        )


def _detail(passed: Sequence[bool], runs: Sequence[ProgramRun]) -> str:
    if all(passed):
        return f"{len(passed)} of {len(passed)} tests passed"
    first = list(passed).index(False)
    run = runs[first]
    reasons = {"ok": "wrong answer", "error": "failed", "timeout": "time limit", "output": "output limit"}
    reason = reasons.get(run.status, "not run")
    if run.status == "error" and run.stderr.strip():
        reason = run.stderr.strip().splitlines()[-1][:120]
    elif run.status == "ok" and not run.stdout and not run.has_value:
        reason = "no output"
    return f"{sum(passed)} of {len(passed)} tests passed; test {first}: {reason}"


def _built_in(name: str, prompt: str, solution: str, **hidden: Any) -> Task:
    return Task(id=f"code-{name}", family="code", prompt=prompt, hidden={"solution": solution, **hidden})


BUILT_IN = (
    _built_in(
        "sum",
        "Read integers, one a line, until the input ends. Print their sum.",
        "import sys\n\nprint(sum(int(line) for line in sys.stdin))\n",
        tests=[{"input": "1\n2\n", "output": "3\n"}, {"input": "-4\n4\n10\n", "output": "10\n"}],
    ),
    _built_in(
        "reverse",
        "Read one line and print its words in reverse order.",
        'print(" ".join(reversed(input().split())))\n',
        tests=[{"input": "a b c\n", "output": "c b a\n"}, {"input": "one\n", "output": "one\n"}],
    ),
    _built_in(
        "median",
        "Write a function median(values) that returns the middle element of a list of odd length after sorting.",
        "def median(values):\n    return sorted(values)[len(values) // 2]\n",
        fn_name="median",
        tests=[{"args": [[3, 1, 2]], "expected": 2}, {"args": [[5]], "expected": 5}],
    ),
)
