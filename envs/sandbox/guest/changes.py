"""Inside the sandbox: what has been written since a moment, where no engine outside can tell.

Part of the guest (see server.py): standard library only.

Whatever is written, moved, replaced or made anew has a later change time, which a process without capabilities cannot
set.
"""

import os
import stat
import time
from collections.abc import Callable, Iterator

NOT_ON_DISK = ("/proc", "/sys", "/dev", "/.verigym", "/run/verigym")
CLOCK_S = 0.012
"""Longer than the kernel's clock of change times takes to move on."""


def moment() -> int:
    """Now, in nanoseconds; what is written when this has returned was changed later."""
    now = time.time_ns()
    time.sleep(CLOCK_S)
    return now


def written(since: int) -> tuple[int, int]:
    """(bytes, files) of what was changed since then; what cannot be looked into is left out."""
    num_bytes, num_files = 0, 0
    for _, status in _walk(lambda path: False):
        if status.st_ctime_ns >= since:
            num_files += 1
            if stat.S_ISREG(status.st_mode):
                num_bytes += status.st_blocks * 512 // max(1, status.st_nlink)
    return num_bytes, num_files


def changed(since: int, folders: tuple[str, ...]) -> dict[str, tuple]:
    """Paths outside of some folders that were changed since then, and how; of what holds one of the folders, which
    changes with it, the names in it."""
    below = tuple(folder + "/" for folder in folders)
    above = {"/"}
    for folder in folders:
        while (folder := os.path.dirname(folder)) != "/":
            above.add(folder)
    found = {}
    for path, status in _walk(lambda path: path in folders or path.startswith(below)):
        whose = status.st_mode, status.st_uid, status.st_gid
        if path in above:
            found[path + " holds"] = (*whose, *sorted(os.listdir(path)))
        elif status.st_ctime_ns >= since:
            found[path] = (*whose, status.st_ino, status.st_ctime_ns)
    return found


def _walk(left_out: Callable[[str], bool]) -> Iterator[tuple[str, os.stat_result]]:
    """(path, status) of the root and of everything below that lies on a disk and is not left out."""
    yield "/", os.lstat("/")
    waiting = ["/"]
    while waiting:
        folder = waiting.pop()
        try:
            names = os.listdir(folder)
        except OSError:
            continue  # closed to us, or gone while we looked
        for name in names:
            path = os.path.join(folder, name)
            if path in NOT_ON_DISK or left_out(path):
                continue
            try:
                status = os.lstat(path)
            except OSError:
                continue
            yield path, status
            if stat.S_ISDIR(status.st_mode):
                waiting.append(path)
