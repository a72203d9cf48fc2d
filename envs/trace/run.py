"""Programs traced in a sandbox, and what came of each: a ``Trace`` with its evidence."""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ...errors import TaskError
from ...model.chat.trace import EVENTS, START_MARKER, Frame, Trace
from ..code.box import ProgramBox, ProgramRun, RunLimits
from ..sandbox.types import SandboxBackend
from .guest import PROGRAM, prelude

FILE_NAME = "program.py"
Ended = Literal["returned", "raised", "exit", "compile", "timeout", "died"]
Backend = Literal["", "settrace", "monitoring"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceBounds:
    """How much of a run is recorded. A run beyond them goes on untraced, or is ended by its limits, and is flagged.

    Attributes:
        events: frames of a trace.
        value_chars: characters of a value's text, or a little more.
        items: shown of one container.
        depth: of containers in containers.
        cpu_s: processor time of the run; three times as much and two seconds of wall clock.
        memory_mib: address space.
        output_bytes: of all that is told of a run, its printed text included.
    """

    events: int = 2000
    value_chars: int = 400
    items: int = 40
    depth: int = 6
    cpu_s: float = 5.0
    memory_mib: int = 1024
    output_bytes: int = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceJob:
    """A program to trace.

    Attributes:
        source: of a file.
        call: an expression that the file's names are known to; "" traces the file itself, as a script.
        stdin: what the program reads.
    """

    source: str
    call: str = ""
    stdin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceRun:
    """A traced run.

    Attributes:
        trace: its context and frames.
        lines: number of each frame's line in the context, from 1.
        ended: "returned", "raised", "exit" (SystemExit reached the top), "compile" (the source is no program),
            "timeout", or "died" (the process ended before it could say how).
        value: text of what the call gave, or of what it raised; None where neither is known.
        stdout: what was printed.
        detail: one line on an error.
        flags: what makes the trace less than whole, or the run less than repeatable: "events", "cut" (a value),
            "hidden" (a value has a state that is not written),
            "timeout", "died", "output", "exit", "recursion", "finalizer" (tracing may delay one), "settrace" (the
            program touched the tracer), "threads" (only the first is traced), "fork", "subprocess", "socket",
            "ctypes", "descriptor" (printed past Python), "tracer" (a mistake of ours; ``detail`` has it).
    """

    trace: Trace
    lines: tuple[int, ...]
    ended: Ended
    value: str | None = None
    stdout: str = ""
    detail: str = ""
    flags: frozenset[str] = frozenset()


class TraceBox:
    """Traces programs, each in a process of its own. It holds nothing that must be closed."""

    def __init__(self, backend: SandboxBackend, *, bounds: TraceBounds | None = None) -> None:
        self.bounds = bounds or TraceBounds()
        bounds = self.bounds
        limits = RunLimits(
            cpu_s=bounds.cpu_s,
            memory_mib=bounds.memory_mib,
            output_bytes=bounds.output_bytes,
            stop_at_timeout=False,
            total_s=86_400.0,
        )
        self._box = ProgramBox(backend, limits=limits)

    async def trace(self, jobs: Sequence[TraceJob], *, backend: Backend = "", untraced: bool = False) -> list[TraceRun]:
        """Run each program once.

        Args:
            backend: "settrace" or "monitoring" (Python 3.12 and newer); "" takes the newest there is.
            untraced: run without recording, to compare.
        Raises:
            TaskError: a call that is no expression on one line.
            SandboxError: the sandbox failed. GradingError: it has no working Python.
        """
        if not jobs:
            return []
        contexts = [context_of(job) for job in jobs]
        inputs = [
            guest_job(job, context, self.bounds, backend=backend, untraced=untraced)
            for job, context in zip(jobs, contexts, strict=True)
        ]
        runs = await self._box.run_stdin(PROGRAM, inputs, prelude=prelude())
        return [read_run(run, context) for run, context in zip(runs, contexts, strict=True)]


def context_of(job: TraceJob) -> str:
    """The program as it is run and shown: the source, and a function that makes the call, with the marker.

    Raises:
        TaskError: the call is no expression on one line.
    """
    if not job.call:
        return f"{START_MARKER.strip()}\n{job.source}"
    call = job.call.strip()
    try:
        ast.parse(call, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise TaskError(f"the call {call[:80]!r} is no expression ({error}); write one, such as 'f(1, 2)'") from None
    if "\n" in call or "\r" in call:
        raise TaskError(f"the call {call[:80]!r} has more than one line; write it on one")
    return f"{job.source.rstrip()}\n\n\ndef {entry_of(job)}():{START_MARKER}\n    return {call}\n"


def entry_of(job: TraceJob) -> str:
    """The name of the function that makes the call; the source does not use it."""
    name = "main"
    while re.search(rf"\b{name}\b", job.source + job.call):
        name += "_"
    return name


def guest_job(
    job: TraceJob, context: str, bounds: TraceBounds, *, backend: Backend = "", untraced: bool = False
) -> str:
    """What guest_main.py reads."""
    return json.dumps(
        {
            "source": context,
            "entry": entry_of(job) if job.call else "",
            "name": FILE_NAME,
            "stdin": job.stdin,
            "backend": backend,
            "max_events": bounds.events,
            "max_chars": bounds.value_chars,
            "max_items": bounds.items,
            "max_depth": bounds.depth,
            "untraced": untraced,
        }
    )


def read_run(run: ProgramRun, context: str) -> TraceRun:
    """What the lines of guest_main.py say. A program can write lines too; what makes no sense is left out."""
    source = SourceLines(context)
    frames: list[Frame] = []
    lines: list[int] = []
    printed: list[str] = []
    last: list[Any] | None = None
    for text in run.stdout.split("\n")[:-1]:
        row = _row(text)
        if row is None:
            continue
        if row[0] == "e":
            frames.append(frame_of(row, source))
            lines.append(source.number(row[2], entering=row[1] == "call"))
        elif row[0] == "o":
            printed.append(row[1])
        else:
            last = row
    ended, value, detail, flags = _ending(run, last)
    return TraceRun(
        trace=Trace(context=context, frames=tuple(frames), ended=_is_whole(frames)),
        lines=tuple(lines),
        ended=ended,
        value=value,
        stdout="".join(printed),
        detail=detail,
        flags=flags,
    )


def frame_of(row: Sequence[Any], source: "SourceLines") -> Frame:
    """The frame of an event's row: ["e", event, line, depth, locals, value]."""
    _, event, line, _, shown, value = row
    return Frame(event=event, source=source.line(line, entering=event == "call"), locals=shown or {}, value=value)


class SourceLines:
    """The lines of a program by number, without the marker."""

    def __init__(self, context: str) -> None:
        self._lines = [line.replace(START_MARKER, "") + "\n" for line in context.split("\n")]
        self._heads = _heads(context)

    def number(self, line: int, *, entering: bool) -> int:
        """The line that is shown: a function that is entered stands at its ``def``, below its decorators."""
        line = max(1, line)
        return self._heads.get(line, line) if entering else line

    def line(self, line: int, *, entering: bool) -> str:
        number = self.number(line, entering=entering)
        return self._lines[number - 1] if number <= len(self._lines) else "\n"


def _heads(context: str) -> dict[int, int]:
    """Line of a first decorator -> line of the ``def``, or ``class``."""
    try:
        tree = ast.parse(context)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [node for node in ast.walk(tree) if isinstance(node, kinds) and node.decorator_list]
    return {min(one.lineno for one in node.decorator_list): node.lineno for node in found}


def _row(text: str) -> list[Any] | None:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, list) or not row:
        return None
    if row[0] == "e" and len(row) == 6 and row[1] in EVENTS and isinstance(row[2], int | None):
        row[2] = row[2] or 0
        shown, value = row[4], row[5]
        known = shown is None or (isinstance(shown, dict) and all(isinstance(one, str) for one in shown.values()))
        return row if known and isinstance(value, str | None) else None
    if row[0] == "o" and len(row) == 2 and isinstance(row[1], str):
        return row
    return row if row[0] == "d" and len(row) == 6 and row[1] in get_args(Ended) else None


def _ending(run: ProgramRun, last: Sequence[Any] | None) -> tuple[Ended, str | None, str, frozenset[str]]:
    flags: set[str] = set()
    if last is not None:
        _, ended, value, detail, told, errors = last
        flags |= set(told)
        if ended == "exit":
            flags.add("exit")
        return ended, value, "; ".join([*errors, *([detail] if detail else [])]), frozenset(flags)
    if run.status == "timeout":
        return "timeout", None, "the time limit was exceeded", frozenset({"timeout"})
    if run.status == "output":
        return "died", None, "the output limit was exceeded", frozenset({"died", "output"})
    last_words = run.stderr.strip().splitlines()
    return "died", None, last_words[-1][:200] if last_words else "the process ended early", frozenset({"died"})


def _is_whole(frames: Sequence[Frame]) -> bool:
    """Whether the scope that the first frame opens was left."""
    depth = 0
    for frame in frames:
        depth += (frame.event == "call") - (frame.event == "return")
    return bool(frames) and depth == 0
