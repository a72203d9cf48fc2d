"""Running a program on many inputs inside a sandbox: a fresh process for each, and the evidence brought out.

The program and its inputs go in; outputs come out. Expected outputs stay outside, so a program can print anything and
gain nothing by it. Tests that embed their expected values run inside, in a process of their own (``run_tests``).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ...errors import SandboxError
from ..sandbox.types import SandboxBackend
from . import plain
from .guest_clock import Clock
from .judge import value_of
from .pool import program_server

RunStatus = Literal["ok", "error", "timeout", "output", "not_run", "busy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """Bounds on one run of a program.

    Attributes:
        cpu_s: processor time; three times as much and two seconds of wall clock are allowed beside it, not counting
            what the machine lets it wait for a core.
        memory_mib: address space of each process.
        output_bytes: stdout, and any file it writes.
        total_output_bytes: what all runs of a program print and return together; beyond it the remaining inputs are
            left out.
        stop_at_timeout: leave out the remaining inputs once one took too long.
        total_s: wall clock of all runs of a program together, counted so too; beyond it the remaining inputs are left
            out.
    """

    cpu_s: float = 5.0
    memory_mib: int = 1024
    output_bytes: int = 4 << 20
    total_output_bytes: int = 64 << 20
    stop_at_timeout: bool = True
    total_s: float = 600.0

    @property
    def wall_s(self) -> float:
        return 3 * self.cpu_s + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRun:
    """What one run left.

    Attributes:
        status: "ok" is exit code 0, or that the function returned; "timeout" and "output" are exceeded limits;
            "not_run" follows the end of the process that starts runs (a program killed it) or a timeout; "busy" is
            never seen outside.
        stdout: decoded as UTF-8, invalid bytes replaced.
        stderr: its last 4 KiB; of a function that raised, the traceback, or the error's class and text alone.
        report: of a function call or an expression: the line that its process wrote of the value. It is not to be
            trusted to be one, nor to be small: ``compare.same`` reads it.
        has_value: whether there is such a line.
        passed: of embedded tests: their verdict.
        asked: of embedded tests that failed: the line of theirs that did.
    """

    status: RunStatus
    stdout: str = ""
    stderr: str = ""
    report: str = ""
    has_value: bool = False
    passed: bool = False
    asked: str = ""

    @property
    def value(self) -> Any:
        """The value of the report, plain data with exact types; None also where there is none. Reading it may take as
        long as a program wants: for reports of programs that are trusted."""
        return value_of(plain, self.report) if self.has_value else None


NOT_RUN = ProgramRun(status="not_run")


class ProgramBox:
    """Runs programs. It holds nothing: servers come from a pool that all boxes of an event loop share."""

    def __init__(self, backend: SandboxBackend, *, limits: RunLimits | None = None) -> None:
        self._backend = backend
        self.limits = limits or RunLimits()

    async def run_stdin(
        self, program: str, inputs: Sequence[str], *, prelude: str = "", any_exit: bool = False
    ) -> list[ProgramRun]:
        """Run a program as ``__main__`` once for each text on its stdin.

        Args:
            prelude: source executed before the program (imports that a benchmark takes for granted).
            any_exit: whether ``sys.exit`` with any code is an end in order.
        Raises (all methods):
            SandboxError: the sandbox failed. GradingError: it has no working Python.
        """
        job = {"mode": "stdin", "program": program, "inputs": list(inputs), "prelude": prelude}
        return await self._run(job | {"any_exit": any_exit}, len(inputs))

    async def run_calls(
        self,
        program: str,
        fn_name: str,
        arguments: Sequence[Sequence[Any]],
        *,
        prelude: str = "",
        per_process: int = 1,
    ) -> list[ProgramRun]:
        """Call a function that a program defines (or a method of its class ``Solution``) with each argument list.

        Args:
            per_process: calls that share a process, one after the other.
        """
        job = {"mode": "call", "program": program, "fn_name": fn_name, "prelude": prelude, "batch": per_process}
        return await self._run(job | {"inputs": [list(row) for row in arguments]}, len(arguments))

    async def run_expressions(self, program: str, expressions: Sequence[str], *, prelude: str = "") -> list[ProgramRun]:
        """Evaluate each expression after the program, in a process of its own."""
        job = {"mode": "eval", "program": program, "inputs": list(expressions), "prelude": prelude}
        return await self._run(job, len(expressions))

    async def run_call(self, program: str, fn_name: str, call: str) -> ProgramRun:
        """The value of a call whose arguments are anybody's code, evaluated apart from the program's function.

        Args:
            call: source of one call of ``fn_name``.
        """
        job = {"mode": "arguments", "program": program, "fn_name": fn_name, "inputs": [""]}
        return (await self._run(job, 1, call))[0]

    async def run_tests(
        self, program: str, tests: str, *, setup: str = "", names: Sequence[str] = (), prelude: str = ""
    ) -> ProgramRun:
        """Run tests that embed their expected values against a program, each in a process of its own.

        Args:
            tests: source; names it does not define are the program's.
            setup: source of the benchmark that the tests stand on, executed before them and not by the program.
            names: those that are the program's, whatever ``setup`` or Python itself defines.
        """
        job = {"mode": "tests", "program": program, "prelude": prelude, "inputs": [""]}
        second = {"setup": setup, "code": tests, "names": list(names)}
        return (await self._run(job, 1, second))[0]

    async def run_cell(self, program: str) -> ProgramRun:
        """Run a program like an interpreter's cell: the value of a last expression is printed."""
        return (await self._run({"mode": "echo", "program": program, "inputs": [""]}, 1))[0]

    async def aclose(self) -> None:
        """Nothing is held; here so that a box can be closed like what holds something."""

    async def _run(self, job: dict[str, Any], num_runs: int, *more: Any) -> list[ProgramRun]:
        limits = self.limits
        main = job["mode"] in ("stdin", "echo")
        settings = {
            "module": "__main__" if main else "solution",
            "prelude": "",
            "batch": 1,
            "any_exit": False,
            "cpu_s": limits.cpu_s,
            "wall_s": limits.wall_s,
            "total_s": limits.total_s,
            "memory_mib": limits.memory_mib,
            "output_bytes": limits.output_bytes,
            "total_output_bytes": limits.total_output_bytes,
            "stop_at_timeout": limits.stop_at_timeout,
        }
        runs: list[ProgramRun] = []
        # Only a server that no longer answers meets this: each run has its own limit inside.
        patience_s = min(limits.total_s, limits.wall_s * num_runs) + 2 * limits.wall_s + 30
        async with program_server(self._backend, limits.memory_mib, job.get("prelude", "")) as lease:
            lease.server.send(settings | job, *more)
            try:
                async with asyncio.timeout(patience_s) as deadline:
                    while (row := await lease.server.answer()) is not None:
                        if "waits" in row:
                            deadline.reschedule((deadline.when() or 0.0) + float(row["waits"]))
                            continue
                        if "end" in row:
                            lease.clean = row.get("clean") is True
                            break
                        runs.append(_read_run(row))
            except TimeoutError:
                runs.append(ProgramRun(status="timeout"))
        if any(run.status == "busy" for run in runs):
            raise SandboxError(
                f"a program of at most {limits.wall_s:g} s waited {Clock.LONGEST} times as long for a core; "
                "run fewer things at once"
            )
        return runs[:num_runs] + [NOT_RUN] * (num_runs - len(runs))


def _read_run(row: dict[str, Any]) -> ProgramRun:
    """A row of the server; it cannot be written by a program, but is checked all the same."""
    fields = {"status": row.get("status"), "stdout": row.get("stdout", ""), "stderr": row.get("stderr", "")}
    if not all(isinstance(field, str) for field in fields.values()) or fields["status"] not in get_args(RunStatus):
        return NOT_RUN
    if "passed" in row:
        told = {**fields, "stderr": row.get("detail") or fields["stderr"], "asked": row.get("asked", "")}
        return ProgramRun(**told, passed=row["passed"] is True)
    if "value" not in row:
        return ProgramRun(**fields)
    # This line the program's own process wrote.
    line = row["value"] if isinstance(row["value"], str) else ""
    if line.startswith(plain.VALUE):
        return ProgramRun(**fields, report=line, has_value=True)
    try:
        told = str(plain.loads(line[:MOST_ERROR])["error"][1])[:400]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        told = "the program's answer is no plain data"
    shown = fields["stderr"] if told and fields["stderr"].rstrip().endswith(told) else told
    return ProgramRun(status="error", stderr=shown)


MOST_ERROR = 4096
"""Characters of a line that tells an error."""
