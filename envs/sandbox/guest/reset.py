"""Inside the sandbox: what folders held at one moment, and what differs from it later.

Part of the guest (see server.py): standard library only.

A file is the same if its inode and its change time are: a process without capabilities cannot set the change time,
so what was written, moved, replaced or made anew differs, whatever its contents and its other times say.
"""

import os
import resource
import shutil
import stat
import time

Entry = tuple
"""(mode, uid, gid) and, of files and links, inode and change time in nanoseconds; of folders, whose entries are
compared, time of modification and names of extended attributes."""

Manifest = dict[str, Entry]

CLOCK_S = 0.012
"""Longer than the kernel's clock of change times takes to move on: a change right after must not look like none."""


class Snapshot:
    """What some folders and files hold now, to be returned to."""

    def __init__(self, folders: tuple[str, ...], files: tuple[str, ...]) -> None:
        self.folders, self.files, self.own = folders, files, own_state()
        self.entries = manifest(folders, files)
        time.sleep(CLOCK_S)

    def clean(self) -> list[str]:
        """Remove what was not there, and return what has to be brought back. Nothing else may be alive.

        Raises:
            OSError: something cannot be removed or looked at, or was changed that cannot be brought back.
        """
        if own_state() != self.own:
            raise OSError("limits of the first process were changed")
        if left_in_memory():
            raise OSError("System V memory is left")
        now = manifest(self.folders, self.files)
        lost = []
        for path in sorted(now.keys() - self.entries.keys(), key=len, reverse=True):
            _remove(path)
        for path, entry in self.entries.items():
            found = now.get(path)
            if found == entry:
                continue
            if found is not None and stat.S_ISDIR(entry[0]) and stat.S_ISDIR(found[0]):
                os.chmod(path, stat.S_IMODE(entry[0]))
                continue
            _remove(path)
            lost.append(path)
        return sorted(lost)

    def accept(self, brought: list[str]) -> bool:
        """Take these as they are now; whether everything else is as it was, and nothing is missing."""
        for path, entry in sorted(self.entries.items(), reverse=True):
            if stat.S_ISDIR(entry[0]) and os.lstat(path).st_mtime_ns != entry[3]:
                os.utime(path, ns=(entry[3], entry[3]))
        now = manifest(self.folders, self.files)
        for path in brought:
            # The contents came from outside; who owns it and who may read it must be as before.
            if path in now and now[path][:3] == self.entries[path][:3]:
                self.entries[path] = now[path]
        time.sleep(CLOCK_S if brought else 0)
        return now == self.entries and own_state() == self.own


def manifest(folders: tuple[str, ...], files: tuple[str, ...]) -> Manifest:
    """The folders, every path below them, and the files."""
    found = {path: _entry(path, os.lstat(path)) for path in files if os.path.lexists(path) and not os.path.isdir(path)}
    waiting = [path for path in folders if os.path.isdir(path)]
    found |= {path: _entry(path, os.lstat(path)) for path in waiting}
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                found[entry.path] = _entry(entry.path, entry.stat(follow_symlinks=False))
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return found


def _entry(path: str, status: os.stat_result) -> Entry:
    whose = status.st_mode, status.st_uid, status.st_gid
    if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
        return (*whose, status.st_ino, status.st_ctime_ns)
    if stat.S_ISDIR(status.st_mode):
        return (*whose, status.st_mtime_ns, tuple(_attributes(path)))
    return whose


def _attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except IsADirectoryError:
        shutil.rmtree(path)
    except (FileNotFoundError, NotADirectoryError):
        pass


def own_state() -> list[object]:
    """What another process of the same user could have changed of this one."""
    state: list[object] = [
        resource.getrlimit(getattr(resource, name)) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")
    ]
    with open("/proc/self/oom_score_adj") as file:
        state.append(file.read())
    return [*state, os.getpriority(os.PRIO_PROCESS, 0), sorted(os.sched_getaffinity(0))]


def left_in_memory() -> bool:
    """Whether System V segments, semaphores or queues are left, which outlive their processes."""
    for name in ("shm", "sem", "msg"):
        try:
            with open(f"/proc/sysvipc/{name}") as file:
                if len(file.readlines()) > 1:
                    return True
        except OSError:
            continue
    return False


def empty_folder(path: str) -> None:
    """Remove everything in a folder. Raises OSError."""
    with os.scandir(path) as entries:
        for entry in list(entries):
            _remove(entry.path)
