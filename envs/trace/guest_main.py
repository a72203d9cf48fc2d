"""Inside the sandbox: one program in a fresh process, traced; what is told goes out as JSON lines.

The job, a JSON object on stdin: "source", "entry" (name of the function to call; "" traces the module itself),
"name" (file name), "stdin", "backend", "max_events", "max_chars", "max_items", "max_depth", "untraced".

A line is written, whole, as soon as it is known, so that a program which is killed loses nothing:
["e", event, line, depth, locals or null, value or null], ["o", printed text], ["d", how it ended, value, detail,
flags] at the end. Standard library only, Python 3.8 and newer.
"""

import _thread
import fcntl
import io
import json
import linecache
import os
import random
import sys
import threading
import traceback
import types

from . import guest_tracer, guest_values

WATCHED = {
    "_thread.start_new_thread": "threads",
    "os.fork": "fork",
    "os.forkpty": "fork",
    "os.posix_spawn": "subprocess",
    "subprocess.Popen": "subprocess",
    "os.system": "subprocess",
    "os.exec": "subprocess",
    "sys.settrace": "settrace",
    "sys.monitoring.register_callback": "settrace",
    "socket.connect": "socket",
    "socket.bind": "socket",
    "ctypes.dlopen": "ctypes",
}
"""Audit events -> flags. They are told by the interpreter itself, whatever name a program calls by."""

CAPTURED_BYTES = 1 << 20


class Telling:
    """The descriptor that lines go to, out of the program's way."""

    def __init__(self, descriptor):
        self._descriptor = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 200)
        self._process = os.getpid()

    def line(self, row):
        if os.getpid() != self._process:
            return  # a process that the program forked
        data = memoryview(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        while data:
            data = data[os.write(self._descriptor, data) :]


class Printed(io.RawIOBase):
    """The program's stdout or stderr: what is printed is told in its place between events."""

    def __init__(self, telling, number):
        super().__init__()
        self._telling, self._number = telling, number

    def writable(self):
        return True

    def fileno(self):
        return self._number

    def write(self, data):
        text = bytes(data).decode("utf-8", "surrogateescape")
        if self._number == 1:
            self._telling.line(["o", text])
        return len(data)


def main():
    job = json.loads(sys.stdin.buffer.read())
    telling = Telling(1)
    replace_streams(job, telling)
    flags = set()
    watching = [False]
    values = guest_values.Values(job["max_chars"], job["max_items"], job["max_depth"])

    def note(event, frame, line, depth, shown, value):
        telling.line(["e", event, line, depth, shown, value])

    name = job["name"]
    tracer = guest_tracer.Tracer({name: True}, values, note, job["max_events"])

    first = _thread.get_ident()

    def watch(event, arguments):
        # A thread that starts is given meet_thread, which is no doing of the program's.
        if watching[0] and event in WATCHED and not tracer.switching and _thread.get_ident() == first:
            # Where no room is left to call a tracer in, the interpreter puts it off: not the program. Counting
            # frames there raises in its turn, and that keeps the tracer on.
            flags.add("recursion" if event == "sys.settrace" and stands_at_the_limit() else WATCHED[event])

    def meet_thread(frame, event, argument):
        flags.add("threads")
        sys.settrace(None)

    sys.addaudithook(watch)
    threading.settrace(meet_thread)  # before Python 3.12 no audit event tells of a thread
    random.seed(0)
    ended = run(job, name, tracer, watching)
    watching[0] = False
    tracer.stop()
    flags |= tracer.flags
    flags |= {"cut"} if values.cut else set()
    flags |= {"hidden"} if values.hidden else set()
    flags |= {"finalizer"} if values.finalizer else set()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed or replaced by the program
    beside = os.pread(1, CAPTURED_BYTES, 0)
    if beside:
        flags.add("descriptor")
        telling.line(["o", beside.decode("utf-8", "surrogateescape")])
    telling.line(["d", *ended, sorted(flags), tracer.errors])


def stands_at_the_limit():
    """Whether there is room for few calls more."""
    frame, depth = sys._getframe(), 0
    while frame is not None:
        frame, depth = frame.f_back, depth + 1
    return depth > sys.getrecursionlimit() - 60


def replace_streams(job, telling):
    """Descriptors 0 and 1 become files of their own; Python's streams tell what is printed."""
    for number, data in ((0, job["stdin"].encode("utf-8", "surrogateescape")), (1, b"")):
        file = nameless_file()
        os.write(file, data)
        os.lseek(file, 0, os.SEEK_SET)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    for name, number in (("stdout", 1), ("stderr", 2)):
        raw = Printed(telling, number)
        stream = io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "surrogateescape", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.__stdin__ = sys.stdin


def nameless_file():
    """In memory, or on disk where the sandbox refuses that, because without a control group nothing bounds it."""
    try:
        return os.memfd_create("stream")
    except OSError:
        return os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)


def run(job, name, tracer, watching):
    """(how it ended, text of the value or None, detail): "returned", "raised", "exit" or "compile"."""
    source = job["source"]
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    module = types.ModuleType("__main__" if not job["entry"] else "program")
    module.__file__ = name
    sys.modules[module.__name__] = module
    sys.argv = [name]
    try:
        code = compile(source, name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return "compile", None, f"{type(error).__name__}: {error}"
    backend = job["backend"]
    try:
        watching[0] = True
        if not job["entry"]:
            traced(tracer, backend, job["untraced"], lambda: exec(code, module.__dict__))
            return "returned", "None", ""
        exec(code, module.__dict__)
        value = traced(tracer, backend, job["untraced"], module.__dict__[job["entry"]])
        return "returned", tracer.values.text(value), ""
    except SystemExit as error:
        return "exit", None, str(error.code)[:200] if type(error.code) in (int, str, type(None)) else "?"
    except BaseException as error:
        tracer.stop()
        return "raised", tracer.values.text(error), describe(error)


def traced(tracer, backend, untraced, function):
    if untraced:
        return function()
    tracer.start(backend)
    try:
        return function()
    finally:
        tracer.stop()


def describe(error):
    """Class and place of an error; its own text may be code of the program's."""
    frames = traceback.extract_tb(error.__traceback__)
    line = frames[-1].lineno if frames else "?"
    return f"{type(error).__qualname__}, line {line}"
