"""A control group for each sandbox, where this machine lets us have one: what the kernel itself counts and bounds.

Files in memory, System V memory and the buffers of sockets and pipes belong to no process, so that only the kernel's
own account holds them. The group holds the sandbox's disk too, which lies in memory; what is beyond it the guest counts
as memory (``guest/process.py``), and the kernel's limit is for what comes between two looks.
"""

import logging
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import count
from pathlib import Path

from ...errors import SandboxError
from . import labels
from .types import Limits

logger = logging.getLogger(__name__)

PREFIX = "verigym-"
SEEN_AT = "/run/verigym-limits"
"""Where the guest sees the files of its group."""
FOR_GUEST = 96 << 20
"""Beyond the limits: the guest, its code in the page cache, the kernel's records of files."""
_JOIN = 'echo $$ > "$1" || exit 1; shift; exec "$@"'
_numbers = count()
_left: "list[ControlGroup]" = []


class ControlGroup:
    """A folder of the control group file system. The caller closes it when nothing runs in it."""

    def __init__(self, folder: Path, version: int) -> None:
        self.folder, self.version = folder, version

    def bound(self, limits: Limits, extra: int) -> None:
        """Set the kernel's limits. Raises OSError."""
        most = (limits.memory_mib + limits.disk_mib << 20) + extra + FOR_GUEST
        if self.version == 1:
            (self.folder / "memory.limit_in_bytes").write_text(str(most))
            swap = self.folder / "memory.memsw.limit_in_bytes"
            if swap.exists():
                swap.write_text(str(most))
            return
        (self.folder / "memory.max").write_text(str(most))
        swap = self.folder / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")

    def joining(self, argv: Sequence[str]) -> list[str]:
        """The command line that starts a program inside of it."""
        return ["/bin/sh", "-c", _JOIN, "sh", self.members(), *argv]

    def members(self) -> str:
        """The file that a process writes its id to in order to join."""
        return str(self.folder / "cgroup.procs")

    def files(self) -> dict[str, str]:
        """What the guest reads: name under ``SEEN_AT`` -> path here."""
        names = ("memory.stat", "memory.events") if self.version == 2 else ("memory.stat", "memory.oom_control")
        names += () if self.version == 2 else ("memory.kmem.usage_in_bytes", "memory.kmem.tcp.usage_in_bytes")
        return {name: str(self.folder / name) for name in names if (self.folder / name).exists()}

    def close(self) -> None:
        """Remove it; where its processes do not go, when the next one is made. Blocks for a moment."""
        for _ in range(50):  # the processes of a namespace are gone a little after the first of them
            try:
                self.folder.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError as error:
                problem = error
            time.sleep(0.01)
        logger.debug("the control group %s stays for now: %s", self.folder, problem)
        _left.append(self)


def make(limits: Limits, extra: int) -> ControlGroup | None:
    """A group under these limits; None where this machine lets us have none.

    Args:
        extra: bytes of further file systems in memory.
    Raises:
        SandboxError: it could be had before, and cannot now.
    """
    found = place()
    if found is None:
        return None
    again, _left[:] = _left[:], []
    for group in again:
        group.close()
    try:
        return _made(*found, limits, extra)
    except OSError as error:
        raise SandboxError(f"no control group could be made in {found[0]}: {error}") from None


@lru_cache(maxsize=1)
def place() -> tuple[Path, int] | None:
    """(folder in which groups can be made, version of control groups), found out by making one; None: nowhere."""
    for folder, version in _candidates():
        _sweep(folder)
        try:
            tried = _made(folder, version, Limits(), 0)
        except OSError as error:
            logger.debug("no control group in %s: %s", folder, error)
            continue
        try:
            joined = subprocess.run(tried.joining(["/bin/sh", "-c", ":"]), capture_output=True, check=False, timeout=30)
            readable = bool(tried.files())
        finally:
            tried.close()
        if joined.returncode == 0 and readable:
            return folder, version
    return None


def _made(folder: Path, version: int, limits: Limits, extra: int) -> ControlGroup:
    """Raises OSError."""
    own = labels.start_of(os.getpid()) or "0"
    made = ControlGroup(folder / f"{PREFIX}{os.getpid()}-{own}-{next(_numbers)}", version)
    made.folder.mkdir()
    try:
        made.bound(limits, extra)
    except OSError:
        made.close()
        raise
    return made


def _candidates() -> Iterator[tuple[Path, int]]:
    """Folders where a group under our own, or beside it, may be made, the nearest first."""
    for line in _lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        root, mounted = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup" and "memory" in options.split(","):
            own = _own("memory")
            if own is not None and own.startswith(root.rstrip("/") + "/"):
                yield Path(mounted) / own.removeprefix(root).lstrip("/"), 1
        elif kind == "cgroup2":
            own = _own("")
            if own is None or not own.startswith(root.rstrip("/") + "/"):
                continue
            nearest = Path(mounted) / own.removeprefix(root).lstrip("/")
            # Below a group that holds processes no memory can be bounded, so that ours stand beside our own.
            for folder in (nearest, *nearest.parents):
                if not folder.is_relative_to(mounted):
                    break
                if any("memory" in text.split() for text in _lines(folder / "cgroup.subtree_control")):
                    yield folder, 2


def _own(controller: str) -> str | None:
    """This process's group under a controller of version 1, or, for "", of version 2."""
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") if controller else not controllers:
            return path
    return None


def sweep() -> None:
    """Remove what processes have left that are dead, wherever groups of this process would be made."""
    for folder, _ in _candidates():
        _sweep(folder)


def _sweep(folder: Path) -> None:
    """Remove what processes have left that are dead; a group in which something runs stays."""
    try:
        left = list(folder.glob(f"{PREFIX}*"))
    except OSError:
        return
    for group in left:
        pid, _, start = group.name.removeprefix(PREFIX).partition("-")
        if pid.isdecimal() and labels.start_of(int(pid)) != start.partition("-")[0]:
            with suppress(OSError):
                group.rmdir()


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
