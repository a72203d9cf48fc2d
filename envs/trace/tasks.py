"""Tasks about traces: how they are asked, and where they come from."""

import random
from collections.abc import Sequence
from typing import Any, Literal

from ...errors import ChatFormatError, TaskError
from ...model.chat.trace import END, Frame, frame_text
from ..sandbox.types import SandboxBackend
from ..task import Task
from .make import MAKERS, ProgramKind
from .run import TraceBox, TraceJob, TraceRun, context_of
from .twins import twin_key

Ask = Literal["return", "next", "trace"]
ASKED: tuple[Ask, ...] = ("return", "next", "trace")

FORMAT = (
    "A trace is a sequence of frames, each the local variables and the line that is about to run:\n"
    '<|call_sep|>{"name": "value"}<|action_sep|>LINE<|frame_sep|> enters a function,\n'
    '<|line_sep|>{"name": "value"}<|action_sep|>LINE<|frame_sep|> is about to run a line,\n'
    '<|return_sep|><|action_sep|>LINE<|arg_sep|>"value"<|frame_sep|> returns,\n'
    '<|exception_sep|><|action_sep|>LINE<|arg_sep|>"value"<|frame_sep|> raises.\n'
    'Values are written as Python shows them; ".." stands for one that has not changed.'
)
QUESTIONS = {
    "return": "What does `{call}` return? Answer with one literal between [ANSWER] and [/ANSWER].",
    "next": "Write the next frame of this trace, or " + END + " where it is over:\n\n{known}",
    "trace": "Write the whole trace of main().",
}
REASONING = "First write the trace of the call, then the answer."


def job_of(task: Task) -> TraceJob:
    return TraceJob(source=task.hidden["program"], call=task.hidden["call"])


def ask(task: Task, *, reasoning: bool = False) -> str:
    """The question. A task with a prompt of its own is asked with that."""
    if task.prompt:
        return task.prompt
    hidden = task.hidden
    parts = [
        f"```python\n{(hidden['program'] if hidden['ask'] == 'return' else context_of(job_of(task))).rstrip()}\n```"
    ]
    if hidden["ask"] != "return" or reasoning:
        parts.append(FORMAT)
    if hidden["ask"] == "return" and reasoning:
        parts.append(REASONING)
    parts.append(QUESTIONS[hidden["ask"]].format(call=hidden["call"], known=hidden.get("known", "")))
    return "\n\n".join(parts)


def task_of(job: TraceJob, run: TraceRun, what: Ask, *, task_id: str, rng: random.Random) -> Task | None:
    """A task about a run; None where it gives none: an error, a cut trace, source that spells a reserved token."""
    if run.ended != "returned" or run.value is None or not run.trace.ended or "cut" in run.flags:
        return None
    hidden: dict[str, Any] = {"program": job.source, "call": job.call, "ask": what}
    try:
        if what == "return":
            hidden["answer"] = f"[ANSWER]{run.value}[/ANSWER]"
        elif what == "trace":
            hidden["answer"] = frames_text(run.trace.frames)
        else:
            at = rng.randint(1, len(run.trace.frames) - 1)
            hidden |= {"at": at, "known": frames_text(run.trace.frames[:at])}
            hidden["answer"] = frames_text(run.trace.frames[at : at + 1])
    except ChatFormatError:
        return None
    return Task(id=task_id, family="trace", prompt="", hidden=hidden, metadata={"ask": what})


def frames_text(frames: Sequence[Frame]) -> str:
    return "".join(map(frame_text, frames))


async def trace_tasks(
    kind: ProgramKind,
    num: int,
    *,
    seed: int,
    backend: SandboxBackend,
    asked: Sequence[Ask] = ASKED,
    bare: bool = False,
) -> list[Task]:
    """Tasks about generated programs, no two with the same question about the same program, or about one that differs
    from it in names alone.

    Args:
        asked: in turns.
        bare: ask "return" by the program and the call alone, for a tiny model.
    Raises:
        TaskError: this kind has fewer programs.
    """
    box, tasks, known = TraceBox(backend), [], set()
    for batch in range(1 + 20 * num // 100):
        rngs = [random.Random(f"{seed}/tasks/{kind}/{100 * batch + index}") for index in range(100)]
        jobs = [MAKERS[kind](rng) for rng in rngs]
        runs = await box.trace(jobs)
        for job, run, rng in zip(jobs, runs, rngs, strict=True):
            what = asked[len(tasks) % len(asked)]
            key = (twin_key(job.source), what)
            task = task_of(job, run, what, task_id=f"trace-{kind}-{seed}-{len(tasks)}", rng=rng)
            if task is None or key in known:
                continue
            known.add(key)
            tasks.append(_bare(task) if bare else task)
            if len(tasks) == num:
                return tasks
    raise TaskError(f"{num} tasks about {kind} were asked for, {len(tasks)} were found; ask for fewer")


def _bare(task: Task) -> Task:
    """The program and the call alone, and as little around the answer."""
    hidden = dict(task.hidden)
    return Task.from_json({**task.to_json(), "prompt": f"{hidden['program']}{hidden['call']}\n"})


def _built_in(name: str, program: str, call: str, what: Ask, answer: str, **more: Any) -> Task:
    hidden = {"program": program, "call": call, "ask": what, "answer": answer, **more}
    return Task(id=f"trace-{name}", family="trace", prompt="", hidden=hidden, metadata={"ask": what})


_TRIPLE = "def triple(x):\n    y = x + x\n    return y + x\n"
_SHOWN = (
    Frame(event="call", source="def main():\n"),
    Frame(event="line", source="    return triple(4)\n"),
    Frame(event="call", source="def triple(x):\n", locals={"x": "4"}),
    Frame(event="line", source="    y = x + x\n", locals={"x": ".."}),
    Frame(event="line", source="    return y + x\n", locals={"x": "..", "y": "8"}),
    Frame(event="return", source="    return y + x\n", value="12"),
    Frame(event="return", source="    return triple(4)\n", value="12"),
)
BUILT_IN = (
    _built_in("return", _TRIPLE, "triple(4)", "return", "[ANSWER]12[/ANSWER]"),
    _built_in("next", _TRIPLE, "triple(4)", "next", frames_text(_SHOWN[4:5]), at=4, known=frames_text(_SHOWN[:4])),
    _built_in("whole", _TRIPLE, "triple(4)", "trace", frames_text(_SHOWN)),
)
