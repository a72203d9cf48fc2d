"""Inside the sandbox: a program and the tests that embed its expected values, each in a process of its own.

The program's process is forked before the tests are read, so its memory never held them, and the tests' process
cannot be read by it.
"""

import ast
import builtins
import importlib
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from . import guest_child, guest_clock
from .guest_calls import PROGRAM_OPERATIONS, Ended, Line, Remote, describe
from .plain import dumps, loads

MOST_OF_LINE = 1000
"""Characters of a line of the tests that is told."""


def run(job: dict[str, Any], take: Callable[[], Any], told: Callable[[float], None]) -> dict[str, Any]:
    """In a foreman: run both processes, wait for the tests' verdict, end both.

    Args:
        take: gives the second frame: ``setup`` (source of the benchmark that the tests stand on), ``code`` (the
            tests), ``names`` (those that are the program's, whatever else defines them).
        told: of ``guest_clock.Clock``.
    """
    theirs, ours = socket.socketpair()
    stdin = guest_child.memory_file()
    stdout, stderr, verdict = (guest_child.memory_file() for _ in range(3))
    clock = guest_clock.Clock(job["wall_s"], told)
    program = fork(lambda: _be_program(job, (stdin, stdout, stderr, theirs.fileno())))
    theirs.close()
    tests = take()
    judge = fork(lambda: _be_tests(job, tests, (stdin, stdout, verdict, ours.fileno())))
    ours.close()
    in_time = clock.wait_for(judge)
    exit_code = os.waitstatus_to_exitcode(os.waitpid(judge, 0)[1]) if in_time else None
    # The program's own end, where it came to one: the tests may have ended because of it.
    guest_clock.wait_for(program, time.monotonic() + (0.2 if in_time else 0.0))
    ended, status = os.waitpid(program, os.WNOHANG)
    if not guest_clock.reap_all():
        os._exit(72)
    said = guest_child.contents(stderr, guest_child.STDERR_BYTES, tail=True)
    result = {"status": "ok", "stdout": "", "stderr": said, "seconds": time.monotonic() - clock.started}
    if clock.busy:
        return result | {"status": "busy"}
    program_code = os.waitstatus_to_exitcode(status) if ended else 0
    timeouts = (-guest_child.SIGPROF, -guest_child.SIGXCPU)
    if not in_time or exit_code in timeouts or program_code in timeouts:
        return result | {"status": "timeout"}
    if os.fstat(stdout).st_size >= job["output_bytes"]:
        return result | {"status": "output"}
    try:
        row = loads(guest_child.contents(verdict, 1 << 16))
    except ValueError:
        row = {"passed": False, "detail": f"the tests' process ended with {exit_code}"}
    return result | row | {"status": "error" if program_code else "ok"}


def fork(be: Callable[[], None]) -> int:
    """The process that does something and never returns here."""
    pid = os.fork()
    if pid == 0:
        try:
            be()
        finally:
            os._exit(70)
    return pid


def _be_program(job: dict[str, Any], descriptors: tuple[int, int, int, int]) -> None:
    (pipe,) = guest_child.enter(job, *descriptors)

    def serve() -> None:
        namespace = guest_child.new_module(job["module"], job["prelude"])
        guest_child.execute(compile(job["program"], "main.py", "exec", dont_inherit=True), namespace)

        def look(name: str) -> list[Any]:
            return [namespace[name]] if name in namespace else []

        try:
            Line(pipe, PROGRAM_OPERATIONS, look).serve()
        except Ended:
            os._exit(0)

    guest_child.end(serve)


def _be_tests(job: dict[str, Any], tests: dict[str, Any], descriptors: tuple[int, int, int, int]) -> None:
    stdin, stdout, verdict, pipe = descriptors
    null = os.open(os.devnull, os.O_RDWR)
    kept = guest_child.enter(job, null, null, null, verdict, pipe, hidden=True)
    line = Line(kept[1], {})
    row = {"passed": True, "detail": ""}
    try:
        _execute(tests, Remote(line, 0))
    except Ended:
        row = {"passed": False, "detail": "the program ended"}
    except BaseException as error:
        row = {"passed": False, "detail": ": ".join(describe(error)[1:]), "asked": _line_of(error, tests["code"])}
    os.write(kept[0], dumps(row))
    os._exit(0)


def _execute(tests: dict[str, Any], look: Any) -> None:
    namespace = guest_child.new_module("tests", tests["setup"])
    tree = ast.parse(tests["code"])
    own = set(tests["names"])
    for name in sorted((_free_names(tree) - namespace.keys()) | own):
        if name in sys.stdlib_module_names and name not in own:
            namespace[name] = importlib.import_module(name)
        elif found := look(name):
            namespace[name] = found[0]
    exec(compile(tree, "tests.py", "exec"), namespace)


def _line_of(error: BaseException, code: str) -> str:
    """The line of the tests that an error came out of."""
    number, frames = 0, error.__traceback__
    while frames is not None:
        number = frames.tb_lineno if frames.tb_frame.f_code.co_filename == "tests.py" else number
        frames = frames.tb_next
    lines = code.split("\n")
    return lines[number - 1].strip()[:MOST_OF_LINE] if 0 < number <= len(lines) else ""


def _free_names(tree: ast.Module) -> set[str]:
    """Names that are read somewhere and bound nowhere."""
    read, bound = set(), set(vars(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    return read - bound
