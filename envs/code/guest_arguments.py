"""Inside the sandbox: a call whose arguments are anybody's code, evaluated in a process of their own.

What crosses to the program is plain data, and functions that can be called and nothing else: an argument that only
behaves like a value, or that changes the function it is passed to, does so where the function is not. The value of the
call is told by the program's process, which runs only the benchmark's own program.
"""

import ast
import os
import socket
from collections.abc import Callable
from typing import Any

from . import guest_child, guest_clock
from .guest_calls import Ended, Line, describe
from .guest_tests import fork
from .plain import dumps, encode

COLLECT = "__arguments__"


def run(job: dict[str, Any], take: Callable[[], Any], told: Callable[[float], None]) -> dict[str, Any]:
    """In a foreman: run both processes, end both, tell what the call gave.

    Args:
        take: gives the second frame: the text of a call of ``job["fn_name"]``.
        told: of ``guest_clock.Clock``.
    """
    theirs, ours = socket.socketpair()
    null = os.open(os.devnull, os.O_RDWR)
    stderr, value = guest_child.memory_file(), guest_child.memory_file()
    clock = guest_clock.Clock(job["wall_s"], told)
    program = fork(lambda: _be_program(job, (null, null, stderr, value, theirs.fileno())))
    theirs.close()
    expression = take()
    arguments = fork(lambda: _be_arguments(job, expression, (null, null, null, ours.fileno())))
    ours.close()
    in_time = clock.wait_for(program)
    exit_code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1]) if in_time else None
    ended, status = os.waitpid(arguments, os.WNOHANG)
    if not guest_clock.reap_all():
        os._exit(72)
    result = {"status": "ok", "stdout": "", "stderr": guest_child.contents(stderr, guest_child.STDERR_BYTES, tail=True)}
    if clock.busy:
        return result | {"status": "busy"}
    timeouts = (-guest_child.SIGPROF, -guest_child.SIGXCPU)
    if not in_time or exit_code in timeouts or (ended and os.waitstatus_to_exitcode(status) in timeouts):
        return result | {"status": "timeout"}
    if os.fstat(value).st_size >= job["output_bytes"]:
        return result | {"status": "output"}
    line, _, _ = guest_child.contents(value, job["output_bytes"]).partition("\n")
    return result | ({"value": line} if line else {"status": "error"})


def _be_program(job: dict[str, Any], descriptors: tuple[int, ...]) -> None:
    # Hidden: the arguments' process is the same user's.
    value, pipe = guest_child.enter(job, *descriptors, hidden=True)
    line = _Callables(pipe, {})
    try:
        namespace = guest_child.new_module(job["module"], job["prelude"])
        guest_child.execute(compile(job["program"], "main.py", "exec", dont_inherit=True), namespace)
        arguments, keywords = line.call()
        row = {"value": encode(namespace[job["fn_name"]](*arguments, **keywords))}
    except Ended:
        row = {"error": ["ValueError", "the arguments could not be evaluated"]}
    except Exception as error:
        row = {"error": describe(error)}
    data = memoryview(dumps(row) + b"\n")
    while data:
        data = data[os.write(value, data) :]
    os._exit(0)


class _Callables(Line):
    """The program's end of the pipe: what stands on the other side becomes a function here."""

    def call(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of the one call that is asked for."""
        message = self._receive()
        if message[0] == "error":
            raise ValueError(str(message[2])[:400])
        arguments, keywords = (self._decode(part) for part in message[3:5])
        if not isinstance(arguments, list) or not isinstance(keywords, dict):
            raise TypeError("not a call")
        return arguments, keywords

    def _resolve(self, number: int) -> Any:
        remote = super()._resolve(number)
        if number < 0:
            raise ValueError("nothing of the program's was handed over")

        def function(*args: Any, **kwargs: Any) -> Any:
            return self.ask("call", remote, list(args), kwargs)

        return function


def _be_arguments(job: dict[str, Any], expression: str, descriptors: tuple[int, ...]) -> None:
    (pipe,) = guest_child.enter(job, *descriptors)
    line = Line(pipe, {})
    try:
        namespace = guest_child.new_module(job["module"], job["prelude"])
        # An argument may use what the program defines, such as another call of the function.
        guest_child.execute(compile(job["program"], "main.py", "exec", dont_inherit=True), namespace)
        tree = ast.parse(expression, "arguments.py", "eval")
        assert isinstance(tree.body, ast.Call)
        tree.body.func = ast.copy_location(ast.Name(COLLECT, ast.Load()), tree.body.func)
        namespace[COLLECT] = lambda *args, **kwargs: (list(args), kwargs)
        arguments, keywords = eval(compile(tree, "arguments.py", "eval"), namespace)

        def refer(value: Any) -> Any:
            if not callable(value):
                raise TypeError(f"an argument is a {type(value).__name__}, which is no plain data")
            return line.refer(value)

        message = ["ask", "call", None, encode(arguments, refer), encode(keywords, refer)]
    except Exception as error:
        line.send(["error", *describe(error)])
        os._exit(0)
    line.send(message)
    try:
        line.serve()
    except Ended:
        os._exit(0)
