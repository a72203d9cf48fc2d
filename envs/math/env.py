"""``verigym/Math-v0``: a problem with one answer, stated in a box."""

from collections.abc import Sequence
from typing import Any

from ...errors import TaskError
from ...model.chat.messages import Message
from ...rewards.math.grade import grade_math
from ...rewards.math.rules import Verify
from ...rewards.score import Score
from ..code.box import ProgramBox, RunLimits
from ..code.env import describe_run
from ..core import CutOff, ToolEnv
from ..sandbox.choose import make_backend
from ..sandbox.types import SandboxBackend
from ..task import Task
from ..tools.spec import tool
from .equivalence import default_checker


class MathEnv(ToolEnv):
    """One problem, one answer (``task.hidden["answer"]``); the final message's last box is what counts."""

    family = "math"
    system_prompt = "Solve the problem. Give the final answer in \\boxed{}."

    def __init__(
        self,
        *,
        sandbox: str | SandboxBackend = "auto",
        tools: bool = False,
        lenient: bool = True,
        worked_out: bool = True,
        verify: Verify | None = None,
        system_prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            sandbox: where ``python`` runs: "auto", "local", "docker", "unsafe", or a backend; unused without tools.
            tools: whether the policy may call ``python``.
            lenient: accept an answer that is stated outside a box, where there is no box.
            worked_out: an answer that leaves what the question asked to be worked out ("17 + 25", where a number is
                asked for) is none; False: any equal expression is right.
            verify: the symbolic comparison; None for sympy in a process that can be killed.
            system_prompt: instead of the environment's own; "" for none.
            kwargs: as of ToolEnv.
        """
        super().__init__(**kwargs)
        self._backend = None
        if tools:
            self._backend = make_backend(sandbox) if isinstance(sandbox, str) else sandbox
        else:
            self._tools = {}
        if system_prompt is not None:
            self.system_prompt = system_prompt  # type: ignore[misc]
        self._lenient = lenient
        self._worked_out = worked_out
        self._verify = verify
        self._box: ProgramBox | None = None

    def load(self) -> Sequence[Task]:
        return BUILT_IN

    def check(self, task: Task) -> None:
        if not isinstance(task.hidden.get("answer"), str):
            raise TaskError(f"task {task.id!r} has no answer; hidden['answer'] must be a string")

    def start(self, task: Task) -> None:
        if self._backend is not None:
            self._box = ProgramBox(self._backend, limits=RunLimits(cpu_s=10.0, output_bytes=1 << 20))

    @tool
    async def python(self, code: str) -> str:
        """Run Python code in a fresh interpreter; answers with what it prints, and the value of a last expression.

        Args:
            code: the code to run.
        """
        assert self._box is not None
        return describe_run(await self._box.run_cell(code))

    def score(self, task: Task, submission: Any) -> Score:
        verify = self._verify or default_checker()
        problem = task.prompt if self._worked_out else None
        # A text that was cut off states an answer only in the form asked for: whatever else stands last may go on.
        lenient = self._lenient and not isinstance(submission, CutOff)
        return grade_math(str(submission), task.hidden["answer"], verify=verify, lenient=lenient, problem=problem)

    def unfinished(self, task: Task) -> str | None:
        return self.cut_off

    async def stop(self) -> None:
        box, self._box = self._box, None
        if box is not None:
            await box.aclose()

    def gold(self, task: Task) -> Sequence[Message]:
        return [Message(role="assistant", content=f"\\boxed{{{task.hidden['answer']}}}")]


def _built_in(name: str, prompt: str, answer: str) -> Task:
    return Task(id=f"math-{name}", family="math", prompt=prompt, hidden={"answer": answer})


BUILT_IN = (
    _built_in("sum", "What is $17 + 25$?", "42"),
    _built_in("fraction", "What is $\\frac{1}{3} + \\frac{1}{6}$?", "\\frac{1}{2}"),
    _built_in("root", "Solve $x^2 = 50$ for the positive $x$.", "5\\sqrt{2}"),
)
