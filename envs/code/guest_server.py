"""Inside the sandbox: the process from which every program's processes are forked.

It reads a frame (length, marshalled job) for each program from outside and answers in JSON lines. The server itself
never looks at a job: a fresh process, its foreman, does, and ends with the program. So no program, being forked from
the foreman, has in its memory anything of another's; and of its own it has the inputs, never an expected output.

Foreman and server cannot be traced or read by what they start. A program can kill them: it then loses its own
results. After each program the server says whether the sandbox is as it was before; if not, it is thrown away.
"""

import ast
import gc
import importlib
import marshal
import os
import re
import resource
import select
import signal
import time
from types import CodeType
from typing import Any

from . import guest_arguments, guest_calls, guest_child, guest_clock, guest_names, guest_tests
from .plain import dumps, encode

PRELOAD = ["array", "bisect", "cmath", "collections", "contextlib", "copy", "datetime", "decimal", "enum"]
PRELOAD += ["fractions", "functools", "heapq", "io", "itertools", "json", "math", "numbers", "operator"]
PRELOAD += ["random", "re", "statistics", "string", "struct", "time", "types", "typing"]
LATE = ("numpy", "dataclasses", "hashlib", "queue", "threading", "unicodedata")
"""Loaded by the foreman of a program that imports them: here they would make every fork dearer (``threading`` alone
doubles the price of one, because it has work to do in each new process)."""
IMPORTS = {name: re.compile(rf"^[ \t]*(?:import|from)\b[^\n]*\b{name}\b", re.M) for name in LATE}

WATCHED_FOLDERS = ("/", "/tmp", "/var/tmp", "/dev/shm", "/run", "/run/verigym", "/home", "/root")
IPC = ("/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg")
LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]


_taken, _told = 0, 1
"""Descriptors of the server's own input and output."""


def main() -> None:
    guest_child.hide()
    guest_child.adopt_orphans()
    for name in PRELOAD:
        importlib.import_module(name)
    prepared = guest_child.prepare(take())
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    gc.disable()
    gc.freeze()
    global _taken, _told
    _taken, _told = guest_child.prepare_streams()
    before = state()
    tell({"ready": True})
    poll = select.poll()
    poll.register(_taken, select.POLLIN)
    while True:
        poll.poll()
        pid = os.fork()
        if pid == 0:
            try:
                foreman(prepared)
            finally:
                os._exit(70)
        status = os.waitpid(pid, 0)[1]
        if status == EMPTY << 8:
            os._exit(0)
        clean = guest_clock.reap_all() and status == 0 and state() == before
        tell({"end": True, "clean": clean})


TELL_EVERY_S, TELL_AT = 0.1, 1 << 16
"""When results are told though more will come: seconds, characters printed."""

EMPTY = 71
"""Exit code of a foreman that found the end of the input."""


def state() -> Any:
    """What a program could change for those after it: folders, shared memory, what the server itself may do."""
    folders = []
    for path in (*WATCHED_FOLDERS, os.getcwd(), os.environ.get("HOME", "/"), os.environ.get("TMPDIR", "/tmp")):
        try:
            found = os.stat(path)
            folders.append((found.st_ino, found.st_ctime_ns))
        except OSError:
            folders.append(None)
    shared = []
    for path in IPC:
        try:
            with open(path, "rb") as file:
                shared.append(file.read().count(b"\n"))
        except OSError:
            shared.append(None)
    limits = [resource.getrlimit(which) for which in LIMITS]
    room = os.statvfs("/")
    return folders, shared, limits, room.f_files - room.f_ffree, os.getpriority(os.PRIO_PROCESS, 0), affinity()


def affinity() -> Any:
    return sorted(os.sched_getaffinity(0))


def tell(*rows: dict[str, Any]) -> None:
    data = memoryview(b"".join(dumps(row) + b"\n" for row in rows))
    while data:
        data = data[os.write(_told, data) :]


def take() -> Any:
    """The next frame. Exits at the end of the input."""
    return marshal.loads(_bytes(int.from_bytes(_bytes(4), "big")))


def _bytes(count: int) -> bytes:
    pieces = []
    while count:
        piece = os.read(_taken, min(count, 1 << 20))
        if not piece:
            os._exit(EMPTY)
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


# What follows runs in the foreman.


def foreman(prepared: guest_child.Prepared) -> None:
    """Read one job, run its program, tell each result, end."""
    guest_child.adopt_orphans()
    job = take()
    for name in LATE:
        if IMPORTS[name].search(job["program"]):
            try:
                importlib.import_module(name)
            except ImportError:
                pass  # the program will say so
    if job["mode"] in OF_TWO_PROCESSES:
        tell(OF_TWO_PROCESSES[job["mode"]](job, take, put_off))
        os._exit(0)
    started = time.monotonic()
    namespace = prepared.namespace(job["module"], job["prelude"])
    code = compiled(job)
    inputs, at = job["inputs"], 0
    untold: list[dict[str, Any]] = []  # told together: every message wakes two processes on its way
    last, num_bytes, waited_s = started, 0, 0.0
    while at < len(inputs):
        batch = inputs[at : at + job["batch"]]
        results, waited = run_batch(job, code, namespace, batch)
        waited_s += waited
        untold += results
        at += len(results)
        num_bytes += sum(len(result["stdout"]) + len(result.get("value", "")) for result in results)
        if num_bytes > job["total_output_bytes"]:
            results[-1] |= {"status": "output"}
            break
        if time.monotonic() - last > TELL_EVERY_S or sum(len(result["stdout"]) for result in results) > TELL_AT:
            tell(*untold)
            untold, last = [], time.monotonic()
        timeout = results[-1]["status"] in ("timeout", "busy")
        if (timeout and job["stop_at_timeout"]) or time.monotonic() - started - waited_s > job["total_s"]:
            break
    tell(*untold)
    os._exit(0)


def compiled(job: dict[str, Any]) -> CodeType | BaseException:
    """The program's code, or why it has none. Compiling is bounded like a run: at its limit the foreman dies."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (bounded(job["memory_mib"] << 20, hard), hard))
    signal.setitimer(signal.ITIMER_PROF, job["cpu_s"])
    try:
        tree = compile(job["program"], "main.py", "exec", dont_inherit=True)
    except BaseException as error:  # also MemoryError, RecursionError, ValueError (NUL)
        return error.with_traceback(None)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    return tree


def bounded(amount: int, hard: int) -> int:
    return amount if hard == resource.RLIM_INFINITY else min(amount, hard)


def put_off(seconds: float) -> None:
    """Say that a run may take longer, because it waits for a core."""
    tell({"waits": seconds})


OF_TWO_PROCESSES = {"tests": guest_tests.run, "arguments": guest_arguments.run}


def run_batch(
    job: dict[str, Any], code: Any, namespace: dict[str, Any], batch: list[Any]
) -> tuple[list[dict[str, Any]], float]:
    """Run the program in one fresh process, on one input or, where values are returned, on a few.

    Returns:
        (results, seconds that it waited for a core). One result at least: where the process ended early, the inputs
        that are left get another process.
    """
    text = batch[0] if job["mode"] == "stdin" else ""
    stdin = guest_child.memory_file(text.encode("utf-8", "surrogatepass"))
    stdout, stderr, values = (guest_child.memory_file() for _ in range(3))
    clock = guest_clock.Clock(job["wall_s"], put_off)
    pid = os.fork()
    if pid == 0:
        try:
            (told,) = guest_child.enter(job, stdin, stdout, stderr, values)
            guest_child.end(lambda: body(job, code, namespace, batch, told), any_exit=job["any_exit"])
        finally:
            os._exit(70)
    killed = not clock.wait_for(pid)
    # The whole group, before its leader is waited for and its number is free.
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)  # no group yet
    exit_code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seconds = time.monotonic() - clock.started
    if not guest_clock.reap_all():
        os._exit(72)
    timeout = killed or exit_code in (-signal.SIGPROF, -signal.SIGXCPU)
    result = {
        "status": "busy" if clock.busy else "timeout" if timeout else "ok" if exit_code == 0 else "error",
        "exit_code": exit_code,
        "seconds": seconds,
        "stderr": guest_child.contents(stderr, STDERR_BYTES, tail=True),
        "stdout": "",
    }
    if os.fstat(stdout).st_size >= job["output_bytes"] or os.fstat(values).st_size >= job["output_bytes"]:
        result["status"] = "output"
    if job["mode"] in ("stdin", "echo"):
        result["stdout"] = guest_child.contents(stdout, job["output_bytes"])
        results = [result]
    else:
        # Whole lines only: the process can be ended in the middle of one.
        lines = guest_child.contents(values, job["output_bytes"]).split("\n")[:-1]
        results = [result | {"status": "ok", "value": line} for line in lines[: len(batch)]]
        if len(results) < len(batch):
            results.append(result if result["status"] != "ok" else result | {"status": "error"})
    for descriptor in (stdin, stdout, stderr, values):
        os.close(descriptor)
    return results, clock.waited_s


STDERR_BYTES = guest_child.STDERR_BYTES


# What follows runs in the program's process.


def body(job: dict[str, Any], code: Any, namespace: dict[str, Any], batch: list[Any], told: int) -> None:
    if job["mode"] == "echo":
        echo(job["program"], namespace)
        return
    name = job.get("fn_name", "")
    before = namespace.get(name)
    guest_child.execute(code, namespace)
    if job["mode"] == "stdin":
        return
    function = None
    if job["mode"] == "call":
        given = before is not None and namespace.get(name) is before and not guest_names.binds(code, name)
        function = guest_names.find(namespace, name, given=given)
    for item in batch:
        try:
            value = function(*item) if function is not None else eval(compile(item, "main.py", "eval"), namespace)
            line = {"value": encode(value)}
        except (Exception, RecursionError) as error:
            line = {"error": guest_calls.describe(error)}
            if len(batch) == 1:
                guest_child.show(error)
        data = memoryview(dumps(line) + b"\n")
        while data:
            data = data[os.write(told, data) :]


def echo(program: str, namespace: dict[str, Any]) -> None:
    """Like an interpreter's cell: the value of a last expression is printed."""
    tree = ast.parse(program, "main.py")
    last = tree.body[-1] if tree.body else None
    last = last if isinstance(last, ast.Expr) else None
    if last is not None:
        tree.body.pop()
    exec(compile(tree, "main.py", "exec"), namespace)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "main.py", "eval"), namespace)
        if value is not None:
            print(repr(value))


if __name__ == "__main__":
    main()
