"""Inside the sandbox: children under limits, the supervisor of one process, and what is alive.

Part of the guest (see server.py): standard library only.
"""

import errno
import fcntl
import os
import resource
import signal
import stat
import struct
import time
from collections.abc import Callable

from .system import Config, adopt_orphans, libc, limit_calls

STATUS = struct.Struct("!i16s")
"""What a supervisor reports: the wait status of its process, and why it was killed (empty: it was not)."""

READ_LIMIT = 256 << 20
"""Most bytes of one file that are read out at once."""

PAGE = os.sysconf("SC_PAGESIZE")


def enter(config: Config) -> None:
    """In a fresh child: a session of its own, default signals, the limits, the sandbox's user."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
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
        os._exit(_call(call))
    argv, env = request["argv"], {**config["env"], **request["env"]}
    try:
        os.chdir(request["cwd"])
        os.execvpe(argv[0], argv, env)
    except (OSError, ValueError) as error:
        os.write(2, f"cannot run {argv[0]!r} in {request['cwd']!r}: {error}\n".encode(errors="replace"))
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def _call(call: tuple) -> int:
    """One file operation, as the sandbox's user; its data on stdin or stdout. Returns 0 or an errno."""
    name, *arguments = call
    try:
        {"read": _read, "write": _write, "unpack": _unpack, "pack": _pack, "restore": _restore}[name](*arguments)
    except OSError as error:
        os.write(2, (error.strerror or str(error)).encode(errors="replace"))
        return error.errno or errno.EIO
    return 0


def _read(path: str, most: int | None) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    kind = os.fstat(fd).st_mode
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(kind):
        raise OSError(errno.EINVAL, "not a regular file")
    left = READ_LIMIT if most is None else most
    while piece := os.read(fd, 1 << 20):
        if most is not None and len(piece) >= left:
            write_all(1, piece[:left])
            return
        left -= len(piece)
        if left < 0:
            raise OSError(errno.EFBIG, f"larger than {READ_LIMIT} bytes")
        write_all(1, piece)


def _write(path: str, mode: int | None, new: bool) -> None:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | (os.O_EXCL if new else os.O_TRUNC)
    fd = os.open(path, flags, 0o644 if mode is None else mode)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if mode is not None:
        os.fchmod(fd, mode)
    while piece := os.read(0, 1 << 20):
        write_all(fd, piece)
    os.close(fd)


def _unpack(dest: str) -> None:
    import tarfile

    os.makedirs(dest, exist_ok=True)
    try:
        with open(0, "rb") as stdin, tarfile.open(fileobj=stdin, mode="r|*") as archive:
            extract(archive, dest, (plain_member(member, dest) for member in archive))
    except (tarfile.TarError, EOFError) as error:
        raise OSError(errno.EINVAL, f"not a whole tar archive ({error})") from None


def plain_member(member, dest: str):  # type: ignore[no-untyped-def] - of tarfile, which takes long to import
    """A member as it may be unpacked: below ``dest``, without owner, special bits and rights of others to write.

    Raises:
        OSError: it would lie elsewhere.
    """
    name = member.name.lstrip("/")
    inside = os.path.realpath(dest)
    if os.path.commonpath((os.path.realpath(os.path.join(dest, name)), inside)) != inside:
        raise OSError(errno.EINVAL, f"not a tar archive to unpack ({member.name!r} lies outside)")
    kept = _without_owner(member)
    kept.name = name
    kept.mode = member.mode & 0o755
    return kept


def extract(archive, dest: str, members) -> None:  # type: ignore[no-untyped-def]
    """Unpack members as they are. Python before 3.11.4 has no filters; later ones want one."""
    filters = {"filter": "fully_trusted"} if _has_filters() else {}
    archive.extractall(dest, members=members, **filters)


def _has_filters() -> bool:
    import tarfile

    return hasattr(tarfile, "fully_trusted_filter")


def _without_owner(member):  # type: ignore[no-untyped-def]
    import copy

    kept = copy.copy(member)
    kept.uid, kept.gid, kept.uname, kept.gname = os.geteuid(), os.getegid(), "", ""
    return kept


def _pack(folders: tuple[str, ...], files: tuple[str, ...]) -> None:
    """Write folders, with all that is in them, and single files as a tar archive to stdout; devices are left out."""
    import tarfile

    with open(1, "wb", closefd=False) as stdout, tarfile.open(fileobj=stdout, mode="w|") as archive:

        def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
            archive.inodes.clear()  # type: ignore[attr-defined] - each name of a file can be unpacked alone
            return member if member.isfile() or member.isdir() or member.issym() else None

        for path in (*folders, *files):
            if os.path.lexists(path) and (path in folders or not os.path.isdir(path)):
                archive.add(path, filter=kept)


def _restore() -> None:
    """Unpack what ``_pack`` wrote, or a part of it, with the modes as they were."""
    import tarfile

    with open(0, "rb") as stdin, tarfile.open(fileobj=stdin, mode="r|") as archive:
        extract(archive, "/", (_without_owner(member) for member in archive))


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Alive:
    """One process that is alive: its parent, its threads, its resident memory in bytes."""

    __slots__ = ("parent", "pid", "rss", "threads")

    def __init__(self, pid: int, parent: int, threads: int, rss: int) -> None:
        self.pid, self.parent, self.threads, self.rss = pid, parent, threads, rss


def alive() -> dict[int, Alive]:
    """Every process this one can see, zombies left out."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X"):
            found[int(name)] = Alive(int(name), int(fields[1]), int(fields[17]), int(fields[21]) * PAGE)
    return found


def descendants(root: int) -> list[Alive]:
    """The processes below ``root``."""
    children: dict[int, list[Alive]] = {}
    for process in alive().values():
        children.setdefault(process.parent, []).append(process)
    found: list[Alive] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += [process.pid for process in below]
    return found


def kill_descendants(root: int) -> None:
    """Kill what is below this process until nothing is; what it leaves must come to it as an orphan."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        for process in descendants(root):
            try:
                os.kill(process.pid, signal.SIGKILL)
            except OSError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def oom_kills(paths: tuple[str, ...]) -> int:
    """How often the kernel has killed a process of our control group for memory; 0 where that cannot be read."""
    for path in paths:
        try:
            with open(path, "rb") as file:
                for line in file:
                    if line.startswith(b"oom_kill "):
                        return int(line.split()[1])
        except OSError:
            continue
    return 0


def counted_memory(folder: str) -> int:
    """Bytes that the kernel counts for our control group: of processes, of files in memory, of its own for us; 0 where
    that cannot be read. Pages of files on disks, which it can take back, are left out."""
    total = 0
    try:
        with open(folder + "/memory.stat", "rb") as file:
            for line in file:
                name, value = line.split()
                if name in (b"anon", b"rss", b"shmem", b"kernel", b"sock"):
                    total += int(value)
                elif name == b"slab_reclaimable":
                    total -= int(value)
        for name in ("memory.kmem.usage_in_bytes", "memory.kmem.tcp.usage_in_bytes"):  # control groups of version 1
            if os.path.exists(f"{folder}/{name}"):
                with open(f"{folder}/{name}", "rb") as file:
                    total += int(file.read())
    except (OSError, ValueError):
        return 0
    return total


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


def shared_fairly(processes: list[Alive]) -> int:
    """Bytes of memory of the processes, what they share counted once; resident size where that cannot be read."""
    total = 0
    for process in processes:
        size = process.rss
        try:
            with open(f"/proc/{process.pid}/smaps_rollup", "rb") as file:
                for line in file:
                    if line.startswith(b"Pss:"):
                        size = int(line.split()[1]) * 1024
                        break
        except OSError:
            pass
        total += size
    return total
