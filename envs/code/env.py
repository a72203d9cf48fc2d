"""``verigym/Code-v0``: write a Python program that passes hidden tests."""

from collections.abc import Sequence
from typing import Any

from ...errors import TaskError
from ...model.chat.messages import Message
from ...rewards.score import Score
from ..core import ToolEnv
from ..sandbox.choose import make_backend
from ..sandbox.types import SandboxBackend
from ..task import Task
from ..tools.spec import tool
from .box import ProgramBox, ProgramRun, RunLimits
from .grade import ProgramGrader, check_task, limits_of

TOOL_OUTPUT_CHARACTERS = 4_000


class CodeEnv(ToolEnv):
    """One problem, one program, hidden tests.

    The final message's last fenced Python block is the program (``rewards.code.extract_program``). What
    ``task.hidden`` holds is said in ``envs/code/grade.py``, which grades it; ``solution``, a right program, is for
    ``gold``.
    """

    family = "code"
    hook_timeout_s = None  # its sandboxes have limits of their own, and wait their turn
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
        self._grader = ProgramGrader(self._backend, limits=self._limits)
        if system_prompt is not None:
            self.system_prompt = system_prompt  # type: ignore[misc]
        if not tools:
            self._tools = {}
        self._tools_box: ProgramBox | None = None
        self._told = ""

    def load(self) -> Sequence[Task]:
        return BUILT_IN

    def check(self, task: Task) -> None:
        check_task(task)

    def start(self, task: Task) -> None:
        self._tools_box = ProgramBox(self._backend, limits=limits_of(task.hidden, self._limits))

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
        # Runs of its own: nothing that the agent's runs left can help its program.
        score, self._told = await self._grader.score_and_tell(task, str(submission))
        return score

    def feedback(self, task: Task, score: Score) -> str | None:
        """What the first failing test says: its input, what was expected, what came out."""
        return self._told or None

    def unfinished(self, task: Task) -> str | None:
        """A text that was cut off may hold a whole program: it is graded as ``verigym grade`` grades it."""
        return self.cut_off

    async def stop(self) -> None:
        box, self._tools_box = self._tools_box, None
        if box is not None:
            await box.aclose()

    def gold(self, task: Task) -> Sequence[Message]:
        if "call" in task.hidden:
            return [Message(role="assistant", content=f"[ANSWER]{task.hidden['solution']}[/ANSWER]")]
        if not isinstance(task.hidden.get("solution"), str):
            raise TaskError(f"task {task.id!r} states no solution (hidden['solution'])")
        return [Message(role="assistant", content=f"```python\n{task.hidden['solution'].rstrip()}\n```")]


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
