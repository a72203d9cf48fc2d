"""Inside the sandbox: a fresh process for a program, under its limits, and what an interpreter does around it.

Standard library only; sent as source (see box.py).
"""

import atexit
import builtins
import ctypes
import fcntl
import gc
import os
import random
import resource
import signal
import sys
from types import CodeType, ModuleType
from typing import Any

PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
SIGPROF, SIGXCPU = int(signal.SIGPROF), int(signal.SIGXCPU)
STDERR_BYTES = 4096
STACK_BYTES = 120 << 20
"""Of the main thread. The kernel leaves at least 128 MiB below a program's mappings, so it can grow so far."""

_libc = ctypes.CDLL(None)


def hide() -> None:
    """Processes of the same user can neither read this one's memory and descriptors nor trace it."""
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def adopt_orphans() -> None:
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def prepare_streams() -> tuple[int, int]:
    """Make once what every program finds: the standard streams (over files that ``enter`` replaces), its arguments,
    and what the module ``site`` would add.

    Returns:
        the descriptors that the server's own input and output now have.
    """
    taken, told = (fcntl.fcntl(descriptor, fcntl.F_DUPFD, 64) for descriptor in (0, 1))
    for place in range(3):
        descriptor = memory_file()  # a file, as the programs' are: the streams remember that they can be wound
        os.dup2(descriptor, place)
        os.close(descriptor)
    sys.stdin = _stream(0, "r", "surrogateescape")
    sys.stdout = _stream(1, "w", "surrogateescape")
    sys.stderr = _stream(2, "w", "backslashreplace")
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.set_int_max_str_digits(0)
    sys.argv = ["main.py"]
    builtins.exit = builtins.quit = sys.exit
    return taken, told


def memory_file(data: bytes = b"") -> int:
    """A file without a name: in memory, or on the sandbox's disk where the filter of system calls refuses those in
    memory, because without a control group nothing bounds them."""
    try:
        descriptor = os.memfd_create("run")
    except OSError:
        descriptor = os.open("/tmp", os.O_TMPFILE | os.O_RDWR, 0o600)
    if data:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
        os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def contents(descriptor: int, most: int, tail: bool = False) -> str:
    size = os.fstat(descriptor).st_size
    start = max(0, size - most) if tail else 0
    return os.pread(descriptor, min(size, most), start).decode("utf-8", "replace")


# What follows runs in the child.


def enter(job: dict[str, Any], stdin: int, stdout: int, stderr: int, *kept: int, hidden: bool = False) -> list[int]:
    """Become the program's process: descriptors, limits, streams.

    Args:
        kept: further descriptors that stay open.
        hidden: stay unreadable for other processes, which costs the process its own /proc/self.
    Returns:
        what ``kept`` are numbered now.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.setsid()
    if not hidden:
        _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    places = (stdin, stdout, stderr, *kept)
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 64) for descriptor in places]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place)
    os.closerange(len(places), 1 << 16)
    _limit(resource.RLIMIT_AS, job["memory_mib"] << 20)
    _limit(resource.RLIMIT_FSIZE, job["output_bytes"])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_STACK, STACK_BYTES)
    _limit(resource.RLIMIT_CPU, int(job["cpu_s"]) + 2)
    # The default action ends the process. CPU time, so that a busy machine changes no verdict.
    signal.setitimer(signal.ITIMER_PROF, job["cpu_s"])
    gc.enable()  # what the server left frozen stays so: a collection would copy all of its pages
    random.seed(0)  # the same program gives the same verdict
    return list(range(3, len(places)))


def _stream(descriptor: int, mode: str, errors: str) -> Any:
    return open(descriptor, mode, encoding="utf-8", errors=errors, closefd=False)


def _limit(which: int, amount: int) -> None:
    hard = resource.getrlimit(which)[1]
    amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
    resource.setrlimit(which, (amount, amount))


def new_module(name: str, prelude: str) -> dict[str, Any]:
    """The names of a fresh module, with what the prelude defines."""
    module = sys.modules[name] = ModuleType(name)
    if prelude:
        exec(compile(prelude, "prelude.py", "exec"), module.__dict__)
    return module.__dict__


class Prepared:
    """What a prelude defines, made once for every process that is forked later. Used as it is by the one program of
    such a process: a copy would touch all its objects, and so copy their pages."""

    def __init__(self, prelude: str, module: ModuleType) -> None:
        self._prelude, self._module = prelude, module

    def namespace(self, name: str, prelude: str) -> dict[str, Any]:
        """As ``new_module``."""
        if prelude != self._prelude:
            return new_module(name, prelude)
        self._module.__name__ = name
        sys.modules[name] = self._module
        return self._module.__dict__


def prepare(prelude: str) -> Prepared:
    """Execute a prelude. One that raises is left to the programs, whose failure it then is."""
    module = ModuleType("prepared")
    try:
        exec(compile(prelude, "prelude.py", "exec"), module.__dict__)
    except Exception:
        return Prepared(f"not {prelude}", ModuleType("prepared"))
    return Prepared(prelude, module)


def execute(code: "CodeType | BaseException", namespace: dict[str, Any]) -> None:
    """Run a compiled program; one that could not be compiled raises its error here, where it is the program's."""
    if isinstance(code, BaseException):
        raise code
    exec(code, namespace)


def end(run: Any, *, any_exit: bool = False) -> None:
    """Call ``run``, end as an interpreter would, and leave the process with the program's exit status.

    Args:
        any_exit: whether ``SystemExit`` counts as 0, whatever it says.
    """
    code = 0
    try:
        run()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if code == 1 and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
        code = 0 if any_exit else code
    except BaseException as error:
        show(error)
        code = 1
    _finish()
    os._exit(code & 0xFF)


def show(error: BaseException) -> None:
    """The traceback of a program's error, less the frames that are ours."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != "main.py":
        frames = frames.tb_next
    sys.__excepthook__(type(error), error.with_traceback(frames), frames)


def _finish() -> None:
    """What an interpreter does at its end: wait for threads, run exit functions, flush."""
    if "threading" in sys.modules:
        vars(sys.modules["threading"])["_shutdown"]()
    atexit._run_exitfuncs()
    for file in (sys.stdout, sys.stderr):
        try:
            file.flush()
        except (OSError, ValueError, AttributeError):
            pass
