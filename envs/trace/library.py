"""Traces of a library's functions, with the inputs that its own tests give them."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import TaskError
from ...model.chat.trace import Frame, Trace
from ..sandbox.background import on_thread
from ..sandbox.python import PythonEnvironment, python_environment
from ..sandbox.types import SandboxBackend, SandboxSpec
from ..synthesis.probing import PROBE_ENV, WORKDIR, packed_tree
from ..synthesis.sources import Source
from .context import SourceTree
from .examples import Example
from .guest import LIBRARY_PROGRAM, prelude

logger = logging.getLogger(__name__)

FOLDER = ".verigym-trace"
Row = list[Any]
"""[event, file, line, locals, value, function] of guest_library.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingSettings:
    """How a library's tests are recorded.

    Attributes:
        max_events: of one call; a longer one is dropped, calls within it may still be recorded.
        per_function: most calls kept of one function.
        value_chars, items, depth: as ``TraceBounds``.
        test_s: seconds of one test; it fails beyond.
        total_s: seconds after which no further test begins.
    """

    max_events: int = 400
    per_function: int = 12
    value_chars: int = 240
    items: int = 24
    depth: int = 5
    test_s: float = 20.0
    total_s: float = 240.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What one run of the tests gave.

    Attributes:
        calls: (test, number within the test) -> rows.
        end: the run's own figures; {} where it did not come to its end.
    """

    calls: Mapping[tuple[str, int], list[Row]]
    end: Mapping[str, Any]


async def record_tests(
    source: Source,
    backend: SandboxBackend,
    settings: RecordingSettings,
    *,
    hash_seed: int = 0,
    untraced: bool = False,
) -> Recording:
    """Run the tests once in a fresh sandbox and record the calls.

    Args:
        hash_seed: of strings, so that a second run can differ in the order of sets.
        untraced: run the tests alone, to compare.
    Raises:
        TaskError: the tests cannot be run. SandboxError: the sandbox failed.
    """
    environment = await on_thread(python_environment, source.requirements)
    sandbox = await backend.create(SandboxSpec(workdir=WORKDIR, binds=tuple(environment.binds)))
    try:
        await sandbox.put_archive(await on_thread(packed_tree, source.root), WORKDIR)
        program = (prelude() + LIBRARY_PROGRAM).encode()
        job = json.dumps(_job(source, settings, untraced)).encode()
        for name, data in (("record.py", program), ("job.json", job)):
            await sandbox.write_file(f"{WORKDIR}/{FOLDER}/{name}", data)
        process = await sandbox.arun(
            [environment.python, f"{FOLDER}/record.py", f"{FOLDER}/job.json", f"{FOLDER}/calls.jsonl"],
            cwd=WORKDIR,
            env={**PROBE_ENV, **source.env, "PYTHONHASHSEED": str(hash_seed)},
            timeout_s=settings.total_s + 2 * settings.test_s + 120.0,
        )
        try:
            data = await sandbox.read_file(f"{WORKDIR}/{FOLDER}/calls.jsonl")
        except FileNotFoundError:
            said = process.stderr.decode(errors="replace").strip().splitlines() or ["nothing on stderr"]
            raise TaskError(
                f"the tests of {source.name} cannot be run ({said[-1][:200]}); give what they need by --with"
            ) from None
    finally:
        await sandbox.aclose()
    return _read(data, source, environment)


def _job(source: Source, settings: RecordingSettings, untraced: bool) -> dict[str, Any]:
    return {
        "files": source.package_files,
        "collect": source.test_files,
        "max_events": settings.max_events,
        "max_chars": settings.value_chars,
        "max_items": settings.items,
        "max_depth": settings.depth,
        "per_function": settings.per_function,
        "test_s": settings.test_s,
        "total_s": settings.total_s,
        "backend": "",
        "untraced": untraced,
    }


def _read(data: bytes, source: Source, environment: PythonEnvironment) -> Recording:
    calls: dict[tuple[str, int], list[Row]] = {}
    end: Mapping[str, Any] = {}
    for line in data.decode("utf-8", "replace").split("\n")[:-1]:
        try:
            row = json.loads(line)
            if "end" in row:
                end = row["end"]
            else:
                calls[row["test"], row["number"]] = row["rows"]
        except (ValueError, KeyError, TypeError):
            logger.warning("%s: a line of its recording cannot be read and is left out", source.name)
    if not end:
        logger.warning("%s: its tests ended the interpreter; what was recorded before is kept", source.name)
    return Recording(calls=calls, end=end)


def examples_of(rows: Sequence[Row], tree: SourceTree, *, origin: str) -> Iterator[Example]:
    """A recorded call as a trace, and each call within it as a trace of its own."""
    for start, end in _calls_in(rows):
        part = rows[start : end + 1]
        name, first, _ = part[0][5]
        frames = tuple(_frame(row, tree) for row in part)
        entered = [(row[1], row[5][1]) for row in part if row[0] == "call"]
        trace = Trace(context=tree.context((part[0][1], first), entered), frames=frames, ended=True)
        cut = any("..." in text for frame in frames for text in (*frame.locals.values(), frame.value or ""))
        yield Example(trace=trace, kind="library", origin=f"{origin} {part[0][1]}:{name}", function=name, cut=cut)


def _calls_in(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """(first, last) row of the recorded call and of those in it, of plain functions alone: a generator is entered
    again later, a comprehension is no call of anyone's."""
    open_calls: list[int] = []
    found = []
    for at, row in enumerate(rows):
        if row[0] == "call":
            open_calls.append(at)
        elif row[0] == "return" and open_calls:
            start = open_calls.pop()
            name, _, entered_again = rows[start][5]
            if not entered_again and not name.rpartition(".")[2].startswith("<"):
                found.append((start, at))
    return sorted(found)


def _frame(row: Row, tree: SourceTree) -> Frame:
    event, file, line, shown, value, function = row
    number = function[1] if event == "call" and not function[2] else line
    return Frame(
        event=event,
        source=tree.line(file, number or 1, entering=event == "call"),
        locals=shown or {},
        value=value,
    )
