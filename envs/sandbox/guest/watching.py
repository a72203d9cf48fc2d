"""Inside the sandbox: what is alive, what it is of, and what memory it holds.

Part of the guest (see server.py): standard library only.
"""

import os
import signal
import time

PAGE = os.sysconf("SC_PAGESIZE")


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
