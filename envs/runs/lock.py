"""One process at a time writes a run's folder."""

import fcntl
import json
import os
import shlex
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self

from ...errors import ConfigError

NAME = ".lock"


class RunLock:
    """Held while a command writes to a folder, or to a file; a context manager.

    The lock is the kernel's (flock), so that it goes when its holder does, however that ended. Its file says who holds
    it. A process that was forked by the holder and outlives it has the lock too; it writes nothing, so the lock of a
    holder that is known to be dead is taken over.
    """

    def __init__(self, target: Path, *, is_file: bool = False, advice: str = "choose another --out") -> None:
        """
        Args:
            target: a folder, which is made where it is missing.
            is_file: ``target`` is a file that is written; the lock is ``TARGET.lock`` beside it.
            advice: what to do other than wait, for the message.
        """
        self._target, self._advice = target, advice
        self._path = target.with_name(f"{target.name}.lock") if is_file else target / NAME
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        """
        Raises:
            ConfigError: another process holds it; the message names that one.
        """
        if self._path.name == NAME and self._target.exists() and not self._target.is_dir():
            raise ConfigError(f"{self._target} is not a folder; {self._advice}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:  # a link to nowhere, a file above it, a folder of somebody else
            raise ConfigError(f"{self._target} cannot be made ({error.strerror}); {self._advice}") from None
        with _alone_in(self._path.parent):
            file = self._opened()
            if not _lock(file):
                holder = _read(file)
                file.close()
                if not _is_dead(holder):
                    raise ConfigError(
                        f"{self._target} is in use by another run{_told(holder)}; wait for it, or {self._advice}"
                    )
                # What a child of the dead one still holds is a file without a name from now on.
                self._path.unlink(missing_ok=True)
                file = self._opened()
                assert _lock(file), "nobody else can have opened it"
            file.truncate(0)
            file.write(json.dumps(_self()) + "\n")
            file.flush()
        self._file = file
        return self

    def __exit__(self, *_: object) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        with suppress(OSError), _alone_in(self._path.parent):
            self._path.unlink(missing_ok=True)
        # A child that was forked meanwhile has the same lock: closing alone would leave it locked.
        fcntl.flock(file, fcntl.LOCK_UN)
        file.close()

    def _opened(self) -> IO[str]:
        """Raises ConfigError where something else has its place: a link would lead to a file that is no lock."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags, 0o644)
        except OSError as error:
            raise ConfigError(f"{self._path} cannot be locked ({error.strerror}); remove it") from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ConfigError(f"{self._path} cannot be locked (it is no file); remove it")
        return os.fdopen(descriptor, "a+", encoding="utf-8")


def holder_of(folder: Path) -> dict[str, Any] | None:
    """Who holds a folder's lock, from its file alone, which is left untouched: "pid", "host", "command", "since", and
    "alive": True or False, or None where it is on another machine, of which nothing is known. None: nobody."""
    try:
        with (folder / NAME).open(encoding="utf-8") as file:
            holder = _read(file)
    except OSError:
        return None
    if not holder:
        return None
    here = holder.get("place") == _place()
    return {**holder, "alive": not _is_dead(holder) if here else None}


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """For the moment in which a lock's file is made or removed: of those that do it in a folder, one at a time."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _self() -> dict[str, Any]:
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {
        "pid": os.getpid(),
        "started": _start_of(os.getpid()),
        "place": _place(),
        "host": socket.gethostname(),
        "command": " ".join(shlex.quote(word) for word in words)[:300],
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _read(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        holder = json.loads(file.read() or "{}")
    except ValueError:
        return {}  # it is being written
    return holder if isinstance(holder, dict) else {}


def _told(holder: dict[str, Any]) -> str:
    if "pid" not in holder:
        return ""
    return f": process {holder['pid']} on {holder.get('host')} (`{holder.get('command')}`, since {holder.get('since')})"


def _is_dead(holder: dict[str, Any]) -> bool:
    """Whether the holder is known to have ended; one on another machine, or in another container, is not known."""
    if "pid" not in holder or holder.get("place") != _place():
        return False
    return _start_of(int(holder["pid"])) != holder.get("started")


def _place() -> str:
    """This boot of this machine and this container's processes: where a process id means something."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _start_of(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None: there is none, or it has ended and waits for its parent."""
    try:
        # The name of the program stands in brackets and may hold any character.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        return _start_without_proc(pid)
    except (OSError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


def _start_without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "unknown"
