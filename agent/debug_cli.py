"""``verigym debug``: step a program by prediction alone, at a terminal or from a script on stdin."""

import argparse
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..terminal import console as make_console
from .options import add_policy_option, add_sandbox_option

if TYPE_CHECKING:
    from rich.console import Console

    from .debugger import Session
    from .sources import PolicySource

SOURCE_LINES = 12
HELP = """\
s, step      the next frame, into calls
n, next      the next line, over calls
o, out       to where this function was called
c, continue  to the end
b, back      undo the last command
p, print     all variables, or: p NAME
l, list      the whole program
w, where     the functions that are open
t, truth     put the true frame in the place of the last one (with --check)
r, reset     from the start
q, quit"""


def register(commands: Any) -> None:
    """Add ``debug`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "debug",
        help="step a program by a model's prediction alone",
        description="Step a program as a model predicts that it runs: the program is never executed, but for --check, "
        "which runs it in a sandbox and marks where the prediction is wrong. Commands are read from stdin, one a line.",
        epilog=HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE.py", help="a Python file")
    parser.add_argument("--call", required=True, metavar="EXPR", help="such as 'f(1, 2)'")
    add_policy_option(parser)
    parser.add_argument("--check", action="store_true", help="run the program too, and mark what is wrong")
    parser.add_argument(
        "--skip", action="store_true", help="predict the return of a call that is stepped over at once, as CWM's demo"
    )
    add_sandbox_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the session; with --check 1 where anything that was shown is wrong."""
    import asyncio

    return asyncio.run(_run(args))


async def _run(args: argparse.Namespace) -> int:
    from ..envs.trace.run import TraceJob, context_of
    from ..envs.trace.source_text import read_source
    from ..model.chat.trace import Trace
    from .debugger import Session
    from .prediction import TruePredictor

    job = TraceJob(source=read_source(args.file), call=args.call)
    trace = Trace(context=context_of(job), frames=(), ended=False)
    true = await _truth(job, args.sandbox) if args.check or args.policy == "gold" else None
    source = args.build_policy(args.policy, max_batch=1)
    try:
        if args.policy == "gold":
            assert true is not None
            predictor = TruePredictor(frames=true)
        else:
            predictor = _predictor(source)
        session = Session(trace=trace, predictor=predictor, true=true if args.check else None, skip=args.skip)
        console = make_console(highlight=False, width=None if sys.stdout.isatty() else 120)
        return await Interface(session, console).loop()
    finally:
        await source.aclose()


def _predictor(source: "PolicySource") -> Any:
    from ..errors import ConfigError

    if source.predictor is None:
        raise ConfigError(f"the policy {source.name!r} predicts no traces; give engine:, openai: or gold")
    return source.predictor()


async def _truth(job: Any, sandbox: str) -> Any:
    """The frames of the real run.

    Raises:
        TaskError: the program is none, or its run did not come to an end.
    """
    from ..envs.sandbox.choose import make_backend
    from ..envs.trace.run import TraceBox
    from ..errors import TaskError

    (found,) = await TraceBox(make_backend(sandbox)).trace([job])
    if not found.trace.frames or not found.trace.ended:
        raise TaskError(f"the program gives no whole trace ({found.ended}: {found.detail}); there is no truth to show")
    return found.trace.frames


class Interface:
    """Reads commands, moves the session, shows where it stands."""

    def __init__(self, session: "Session", console: "Console") -> None:
        self._session, self._console = session, console
        self._wrong: set[int] = set()
        self._moves: dict[str, Callable[[], Awaitable[None]]] = {
            "s": session.step,
            "n": session.next,
            "o": session.out,
            "c": session.finish,
            "r": session.start,
        }

    async def loop(self) -> int:
        """Until the input ends, or "quit". Returns 1 where a shown frame was wrong, else 0."""
        await self._move(self._session.start)
        interactive = sys.stdin.isatty()
        if interactive:
            self._console.print("h for help", style="dim")
        while True:
            try:
                line = input("> " if interactive else "")
            except EOFError:
                break
            if not await self._command(line.strip()):
                break
        return 1 if self._wrong else 0

    async def _command(self, line: str) -> bool:
        """Do one command; False where it was to quit."""
        word, _, rest = line.partition(" ")
        name = word[:1]
        if word and not any(option.startswith(word) for option in WORDS.get(name, ())):
            name = "?"
        if name == "q":
            return False
        if name in self._moves:
            await self._move(self._moves[name])
        elif name == "b":
            self._say("" if self._session.back() else "this is the start")
            self._show()
        elif name == "t":
            self._say("" if self._session.take_truth() else "the truth is not known; start with --check")
            self._show()
        elif name == "p":
            self._print(rest.strip())
        elif name == "l":
            self._list(whole=True)
        elif name == "w":
            for depth, call in enumerate(self._session.stack()):
                self._say("  " * depth + call)
        elif name:
            self._say(HELP if name == "h" else f"no command {word!r}; h for help")
        return True

    async def _move(self, go: Callable[[], Awaitable[None]]) -> None:
        from ..errors import PolicyError

        before = len(self._session.frames)
        if self._session.over and go != self._session.start:
            self._say("the run is over; b to go back, r to begin again")
            return
        try:
            await go()
        except PolicyError as error:
            self._console.print(f"the model wrote no frame: {error}", style="red", markup=False)
            self._wrong.add(before)
            return
        self._show()

    def _show(self) -> None:
        from rich.text import Text

        session = self._session
        if not session.frames:
            self._say("nothing is predicted yet")
            return
        self._list(whole=False)
        frame = session.frames[-1]
        style = {"call": "cyan", "return": "green", "exception": "red"}.get(frame.event, "bold")
        number = f"{len(session.frames)}{'  ' * session.depth}"
        told = (
            ""
            if frame.event in ("call", "line")
            else f" -> {'(left by the exception)' if frame.value is None else frame.value}"
        )
        self._console.print(Text(f"{number}{frame.event} {frame.source.strip()}{told}", style=style))
        if frame.event in ("call", "line") and session.values():
            self._print("")
        if session.over:
            self._console.print("the run is over", style="bold green")
        self._mark()

    def _mark(self) -> None:
        """Say what is wrong, where the truth is known."""
        session = self._session
        if session.true is None:
            return
        wrong = session.objection()
        place = len(session.frames)
        if wrong:
            self._wrong.add(place)
            self._console.print("  wrong: " + "; ".join(wrong), style="bold red", markup=False)
        else:
            self._wrong.discard(place)
            self._console.print("  right", style="green")

    def _print(self, name: str) -> None:
        from rich.text import Text

        from .debugger import changed

        values, new = self._session.values(), changed(self._session.frames)
        if name and name not in values:
            self._say(f"there is no {name}; there are {', '.join(values) or 'no variables'}")
        for one, text in values.items():
            if name in ("", one):
                self._console.print(Text(f"    {one} = {text}", style="bold" if one in new else ""))

    def _list(self, *, whole: bool) -> None:
        """The source around the line, or all of it; on a terminal only, unless all was asked for."""
        from rich.syntax import Syntax

        from .debugger import line_of

        context = self._session.trace.context
        at = line_of(context, self._session.frames)
        if not self._console.is_terminal:
            if whole:
                for number, line in enumerate(context.rstrip("\n").split("\n"), start=1):
                    self._say(f"{'>' if number == at else ' '}{number:4d} {line}")
            return
        last = context.count("\n") + 1
        first = 1 if whole or at is None else max(1, at - SOURCE_LINES // 2)
        shown = (first, last if whole else min(last, first + SOURCE_LINES))
        self._console.print()
        self._console.print(
            Syntax(context, "python", line_numbers=True, line_range=shown, highlight_lines={at} if at else set())
        )

    def _say(self, text: str) -> None:
        if text:
            self._console.print(text, markup=False)


WORDS = {
    "s": ("step",),
    "n": ("next",),
    "o": ("out",),
    "c": ("continue",),
    "b": ("back",),
    "p": ("print",),
    "l": ("list",),
    "w": ("where",),
    "t": ("truth",),
    "r": ("reset",),
    "h": ("help",),
    "q": ("quit",),
}
