"""``verigym trace``: run a call in a sandbox and print what happened."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...terminal import console as make_console
from ..sandbox.choose import sandbox_name

if TYPE_CHECKING:
    from ..trace.run import TraceRun

MISFORTUNES = {
    "events": "more happened than --max-events; the rest ran unrecorded",
    "cut": "values longer than shown end in ...",
    "hidden": "values whose state C holds are written with ..., and never as unchanged",
    "threads": "only the first thread is recorded",
    "fork": "processes that it forked are not recorded",
    "subprocess": "programs that it started are not recorded",
    "settrace": "the program changed the tracing of its own interpreter",
    "recursion": "the program stood at the limit of recursion, where events are lost; recording may have ended there",
    "finalizer": "a __del__ may have run later than it would untraced",
    "exit": "the program ended itself",
    "timeout": "the time limit was exceeded",
    "died": "the process ended early",
    "tracer": "the tracer failed; please report it",
}


def register(commands: Any) -> None:
    """Add ``trace`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "trace",
        help="run a call in a sandbox and print its execution trace",
        description="Run a call in a sandbox and print its execution trace in the format of the Code World Model: "
        "every call, line, return and exception with the local variables, reserved tokens spelled out. For reading, "
        "each frame stands on a line of its own; --exact prints the very text that a model reads.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.py", help="a Python file; its own lines are traced")
    parser.add_argument("--call", default="", metavar="EXPR", help="such as 'f(1, 2)' (default: the file, as a script)")
    parser.add_argument("--stdin", type=Path, metavar="FILE", help="what the program reads")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--table", action="store_true", help="a table for people")
    shape.add_argument("--exact", action="store_true", help="the trace as one text, which reads back exactly")
    parser.add_argument("--max-events", type=int, default=2000, metavar="N", help="most frames (2000)")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="processor time of the program (5)")
    parser.add_argument("--sandbox", type=sandbox_name, metavar="NAME", default="auto", help="where it runs (auto)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Trace and print; 1 where the program was ended by a limit or could not be compiled."""
    import asyncio

    from ...errors import ConfigError
    from ...model.chat.trace import to_text
    from ..sandbox.choose import make_backend
    from ..trace.run import TraceBounds, TraceBox, TraceJob
    from ..trace.source_text import read_source

    if args.max_events < 1 or not args.seconds > 0:
        raise ConfigError(f"--max-events {args.max_events} and --seconds {args.seconds:g} must be above 0")
    stdin = read_stdin(args.stdin) if args.stdin is not None else ""
    job = TraceJob(source=read_source(args.file), call=args.call, stdin=stdin)
    box = TraceBox(make_backend(args.sandbox), bounds=TraceBounds(events=args.max_events, cpu_s=args.seconds))
    (found,) = asyncio.run(box.trace([job]))
    if args.table:
        _print_table(found)
    elif args.exact:
        print(to_text(found.trace))
    else:
        print(plain(found))
    for flag in sorted(found.flags):
        if flag in MISFORTUNES:
            print(f"note: {MISFORTUNES[flag]}", file=sys.stderr)
    if found.ended not in ("returned", "raised", "exit"):
        print(f"note: {found.detail}", file=sys.stderr)
        return 1
    return 0


def read_stdin(path: Path) -> str:
    """The text of a file in UTF-8.

    Raises:
        TaskError: it is missing, or no UTF-8.
    """
    from ...errors import TaskError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: cannot be read as UTF-8 ({error}); give another file") from None


def plain(found: "TraceRun") -> str:
    """The context, then a frame a line: line breaks of source lines are left out."""
    from ...model.chat.trace import END, frame_text

    lines = [found.trace.context.rstrip("\n"), ""]
    lines += [frame_text(frame).replace("\n", "") for frame in found.trace.frames]
    return "\n".join([*lines, *([END] if found.trace.ended else [])])


def _print_table(found: "TraceRun") -> None:
    from rich.table import Table
    from rich.text import Text

    from ...model.chat.trace import UNCHANGED, depths_of

    table = Table(box=None, pad_edge=False)
    for name in ("line", "event", "source", "values"):
        table.add_column(name, justify="right" if name == "line" else "left", overflow="fold")
    styles = {"call": "cyan", "line": "", "return": "green", "exception": "red"}
    depths = depths_of(found.trace.frames)
    for frame, line, depth in zip(found.trace.frames, found.lines, depths, strict=True):
        new = [f"{name} = {text}" for name, text in frame.locals.items() if text != UNCHANGED]
        told = frame.value if frame.event in ("return", "exception") else ", ".join(new)
        told = "(left by the exception)" if told is None else told
        indent = "  " * (depth - 1)
        cells = (str(line), frame.event, indent + frame.source.strip(), told)
        table.add_row(*(Text(cell, style=styles[frame.event]) for cell in cells))
    console = make_console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    if found.stdout:
        console.print("\nprinted:", style="bold")
        console.print(Text(found.stdout.rstrip("\n")))
    console.print(f"\n{found.ended}" + (f": {found.value}" if found.value is not None else ""), style="bold")
