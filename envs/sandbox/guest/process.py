"""Inside the sandbox: children under limits, and the supervisor of one process.

Part of the guest (see server.py): standard library only.
"""

import fcntl
import os
import resource
import signal
import struct
import time
from collections.abc import Callable

from .files import perform
from .system import Config, adopt_orphans, libc, limit_calls, limit_capabilities
from .watching import kill_descendants

STATUS = struct.Struct("!i16s")
"""What a supervisor reports: the wait status of its process, and why it was killed (empty: it was not)."""


def enter(config: Config) -> None:
    """In a fresh child: a session of its own, default signals, the limits, the sandbox's user."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)  # also what whoever started us ignores, as nohup does
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    for limit, value in config["rlimits"]:
        hard = resource.getrlimit(limit)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (bound, bound))
    if config["drop"]:
        os.setgroups([])
        os.setresgid(config["gid"], config["gid"], config["gid"])
        os.setresuid(config["uid"], config["uid"], config["uid"])
        if config["uid"] == 0:  # of an image's user namespace: to stay root is to keep the rights
            limit_capabilities(config["kept"])
    limit_calls(config["calls"])
    os.umask(0o022)


def keep_only(fds: tuple[int, ...]) -> None:
    """Make these the descriptors 0, 1, 2, ... of this process, and close every other one."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in fds]
    for number, fd in enumerate(high):
        os.dup2(fd, number, inheritable=True)
    os.closerange(len(fds), 1 << 20)


class Expendable:
    """Makes children of this process the first to go where memory runs out: of the sandbox, before the server, which
    would take the sandbox with it; of the whole machine, before the trainer.

    A child cannot say so of itself: its ``/proc/self`` is root's, as that of a process that nobody may trace.
    """

    SCORE = b"500"

    def __init__(self) -> None:
        """Raises OSError where the kernel has no such score."""
        self._file = os.open("/proc/self/oom_score_adj", os.O_RDWR)
        self._own, self._pid = os.pread(self._file, 16, 0).strip(), os.getpid()

    def mark(self) -> None:
        """Children of now have the score."""
        self._write(self.SCORE)

    def unmark(self) -> None:
        self._write(self._own)

    def _write(self, score: bytes) -> None:
        if os.getpid() == self._pid and int(self._own) < int(self.SCORE):
            os.write(self._file, score)


expendable: Expendable | None = None
"""Of the server; opened before nobody may trace it."""


def open_expendable() -> None:
    global expendable
    try:
        expendable = Expendable()
    except (OSError, ValueError):
        expendable = None


def fork(body: Callable[[], None]) -> int:
    """Run ``body`` in a child that never returns from here. Returns its process id."""
    if expendable is not None:
        expendable.mark()
    try:
        pid = os.fork()
    finally:
        if expendable is not None:  # in the child it is another's score, and stays
            expendable.unmark()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(255)
    return pid


def supervise(config: Config, request: Config, fds: tuple[int, int, int, int]) -> None:
    """In a child of the server: run one process, wait for its status, kill whatever it leaves, report.

    Orphans of the process come to the supervisor, not to the server, so that they can be told from the shell's
    own background jobs. ``fds``: stdin, stdout, stderr of the process, and where the report goes.
    """
    signal.set_wakeup_fd(-1)
    keep_only(fds)
    os.set_inheritable(3, False)
    os.setsid()
    adopt_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, signal.SIGTERM))
    deadline = time.monotonic() + request["timeout"]
    main = fork(lambda: _become(config, request))
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    status, killed = _wait(main, deadline)
    kill_descendants(os.getpid())
    os.write(3, STATUS.pack(status, killed))
    os._exit(0)


def _wait(main: int, deadline: float) -> tuple[int, bytes]:
    killed = b""
    while True:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == main:
                return status, killed
            if pid == 0:
                break
        left = deadline - time.monotonic()
        notice = signal.sigtimedwait((signal.SIGCHLD, signal.SIGTERM), max(0.0, left)) if left > 0 else None
        if notice is None or notice.si_signo == signal.SIGTERM:
            killed = killed or (b"timeout" if notice is None else b"told")
            os.kill(main, signal.SIGKILL)
            deadline = time.monotonic() + 60


def _become(config: Config, request: Config) -> None:
    os.close(3)
    enter(config)
    call = request.get("call")
    if call is not None:
        os._exit(perform(call))
    argv, env = request["argv"], {**config["env"], **request["env"]}
    try:
        os.chdir(request["cwd"])
        os.execvpe(argv[0], argv, env)
    except (OSError, ValueError) as error:
        os.write(2, f"cannot run {argv[0]!r} in {request['cwd']!r}: {error}\n".encode(errors="replace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def remove_shared_memory(config: Config) -> None:
    """Remove the System V memory of our namespace, which outlives its processes."""

    def remove() -> None:
        enter(config)
        for number in shared:
            libc.shmctl(number, 0, None)  # IPC_RMID
        os._exit(0)

    try:
        with open("/proc/sysvipc/shm", "rb") as file:
            shared = [int(line.split()[1]) for line in file.readlines()[1:]]
    except OSError:
        return
    if shared:
        os.waitpid(fork(remove), 0)
