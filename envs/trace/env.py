"""``verigym/Trace-v0``: say what a program does without running it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...errors import ChatFormatError, GradingError, TaskError
from ...model.chat.messages import Message
from ...model.chat.trace import END, FRAME, Frame, frames_of_text, unfold
from ...rewards.extraction import answered_expression, side_of_assertion
from ...rewards.score import Score
from ...rewards.trace import Same, score_frame, score_trace, score_value
from ..code.box import ProgramBox, RunLimits
from ..code.compare import same as same_report
from ..core import CutOff, ToolEnv
from ..sandbox.choose import make_backend
from ..sandbox.types import SandboxBackend
from ..task import Task
from .run import TraceBounds, TraceBox, TraceRun
from .tasks import ASKED, BUILT_IN, ask, job_of

MAX_COMPARED = 200
"""Pairs of values that differ as text and are evaluated, of one answer; further ones count as different."""


class TraceEnv(ToolEnv):
    """One program, one call, one question: the value it returns, the next frame of its trace, or the whole trace.

    ``task.hidden``: ``program``, ``call``, ``ask`` ("return", "next" or "trace"), ``at`` (frames that the question
    shows, of "next"), ``answer`` (for ``gold``). The truth is found by running the call, never taken from the task;
    values are equal where a sandbox evaluates them to the same data, however they are written.
    """

    family = "trace"
    hook_timeout_s = None  # its sandboxes have limits of their own, and wait their turn

    def __init__(
        self,
        *,
        sandbox: str | SandboxBackend = "auto",
        reasoning: bool = False,
        bounds: TraceBounds | None = None,
        system_prompt: str | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            sandbox: where programs run: "auto", "local", "docker", "unsafe", or a backend.
            reasoning: ask for the trace before a returned value; only the value is scored.
            bounds: of a run.
            system_prompt: instead of none.
            kwargs: as of ToolEnv.
        """
        super().__init__(**kwargs)
        backend = make_backend(sandbox) if isinstance(sandbox, str) else sandbox
        self._box = TraceBox(backend, bounds=bounds)
        self._literals = ProgramBox(backend, limits=RunLimits(cpu_s=2.0, memory_mib=512, output_bytes=1 << 20))
        self._reasoning = reasoning
        self._runs: dict[str, TraceRun] = {}
        if system_prompt is not None:
            self.system_prompt = system_prompt  # type: ignore[misc]

    def load(self) -> Sequence[Task]:
        return BUILT_IN

    def prompt(self, task: Task) -> str:
        return ask(task, reasoning=self._reasoning)

    def check(self, task: Task) -> None:
        if not all(isinstance(task.hidden.get(key), str) for key in ("program", "call")):
            raise TaskError(f"task {task.id!r}: hidden['program'] and hidden['call'] must be strings")
        if task.hidden.get("ask") not in ASKED:
            raise TaskError(f"task {task.id!r} asks {task.hidden.get('ask')!r}; it can ask {', '.join(ASKED)}")

    async def score(self, task: Task, submission: Any) -> Score:
        """
        Raises:
            TaskError: the call gives nothing to predict. SandboxError, GradingError: it could not be run.
        """
        true = await self._truth(task)
        text = str(submission).rpartition("</think>")[2]
        ended = True
        if isinstance(submission, CutOff):
            text, ended = stated(text, task.hidden["ask"]), END in text
        if task.hidden["ask"] == "return":
            assert true.value is not None
            expression = side_of_assertion(answered_expression(text), "output")
            return score_value(expression or None, true.value, same=await self._same([(expression, true.value)]))
        frames = true.trace.frames
        known = frames[: int(task.hidden["at"])] if task.hidden["ask"] == "next" else ()
        try:
            answered = frames_of_text(text)
        except ChatFormatError as error:
            return Score(value=0.0, passed=False, breakdown={"passed": 0.0}, detail=f"no trace: {error}")
        mine, other = resolved([*known, *answered])[len(known) :], resolved(frames)[len(known) :]
        if task.hidden["ask"] == "trace":
            same = await self._same(_pairs(mine, other))
            return score_trace(mine, other, ended=ended, same=same)
        same = await self._same(_pairs(mine[:1], other[:1]))
        if not mine and END not in text:
            return Score(value=0.0, passed=False, breakdown={"passed": 0.0}, detail="no frame was predicted")
        return score_frame(mine[0] if mine else None, other[0] if other else None, same=same)

    def unfinished(self, task: Task) -> str | None:
        """A text that was cut off may hold the answer, or the right beginning of a trace."""
        return self.cut_off

    def gold(self, task: Task) -> Sequence[Message]:
        if not isinstance(task.hidden.get("answer"), str):
            raise TaskError(f"task {task.id!r} states no answer (hidden['answer'])")
        return [Message(role="assistant", content=task.hidden["answer"])]

    async def _truth(self, task: Task) -> TraceRun:
        if task.id not in self._runs:
            (run,) = await self._box.trace([job_of(task)])
            if run.ended in ("timeout", "died"):
                raise GradingError(f"task {task.id!r}: its program was ended ({run.detail}); it cannot be graded")
            if run.ended == "compile" or run.value is None or not run.trace.ended:
                raise TaskError(f"task {task.id!r}: its call gives no whole trace ({run.ended}: {run.detail})")
            self._runs[task.id] = run
        return self._runs[task.id]

    async def _same(self, pairs: Sequence[tuple[str, str]]) -> Same:
        """Which of these pairs of texts a sandbox evaluates to the same plain data."""
        asked = list(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1] and pair[0]))[:MAX_COMPARED]
        if not asked:
            return lambda predicted, true: predicted == true
        texts = list(dict.fromkeys(text for pair in asked for text in pair))
        values = dict(zip(texts, await self._literals.run_expressions("", texts), strict=True))
        equal = set()
        for left, right in asked:
            mine, other = values[left], values[right]
            if mine.has_value and other.has_value and await same_report("equal", mine.report, other.report):
                equal.add((left, right))
        return lambda predicted, true: predicted == true or (predicted, true) in equal


def stated(text: str, what: str) -> str:
    """What a text that was cut off has said for certain: a value between its two markers, frames with their ends."""
    if text.lstrip().startswith("<think>"):
        return ""  # thinking that never ended
    if what == "return":
        return text if "[/ANSWER]" in text else ""
    last = max(text.rfind(FRAME) + len(FRAME), text.rfind(END) + len(END))
    return text[:last] if FRAME in text or END in text else ""


def resolved(frames: Sequence[Frame]) -> list[Frame]:
    """Frames whose locals are stated in full: "unchanged" and the value again are the same prediction."""
    known = unfold(frames)
    return [
        replace(frame, locals=values) if frame.event in ("call", "line") else frame
        for frame, values in zip(frames, known, strict=True)
    ]


def _pairs(mine: Sequence[Frame], other: Sequence[Frame]) -> list[tuple[str, str]]:
    """Texts of values that stand at the same place and differ."""
    pairs = []
    for left, right in zip(mine, other):
        pairs += [(text, right.locals[name]) for name, text in left.locals.items() if name in right.locals]
        if left.value is not None and right.value is not None:
            pairs.append((left.value, right.value))
    return pairs
