"""Inside the sandbox: the limits on everything together, of which the kernel knows only some.

Part of the guest (see server.py): standard library only.
"""

import os

from . import system
from .system import Config
from .watching import Alive, alive, counted_memory, descendants, oom_kills, shared_fairly

MEMORY_OF_SERVER, BYTES_OF_A_FILE = 64 << 20, 2048
"""Counted with the sandbox's memory, and no command's: the server, and what the kernel keeps of each file."""


class Limits:
    """What has been used when it was last looked at, and whether it is too much now."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.room = system.room("/")
        self.num_files = 0
        self.num_oom_kills = oom_kills(config["oom_files"])

    def begin(self) -> None:
        """Something is about to run: files are counted from here."""
        self.num_files = system.room("/")[1]

    def begin_anew(self) -> None:
        """Everything was killed."""
        self.begin()
        self.num_oom_kills = oom_kills(self.config["oom_files"])

    def processes(self, supervisors: set[int]) -> list[Alive]:
        """All that run, but for this server and its supervisors."""
        below = list(alive().values()) if self.config["contained"] else descendants(os.getpid())
        return [process for process in below if process.pid not in supervisors and process.pid != os.getpid()]

    def exceeded(self, processes: list[Alive]) -> str | None:
        """What these have too much of: "processes", "memory", or None."""
        if sum(process.threads for process in processes) > self.config["num_processes"]:
            return "processes"
        # On a busy machine the kernel's own limit can come first; it kills one process and tells no one else.
        if self._too_much_memory(processes) or self.oom_killed() or self._too_many_files():
            return "memory"
        return None

    def oom_killed(self) -> bool:
        """Whether the kernel has killed for memory since this was last asked."""
        before, self.num_oom_kills = self.num_oom_kills, oom_kills(self.config["oom_files"])
        return self.num_oom_kills > before

    def growth(self) -> str | None:
        """What the disk has filled with by a step, whoever filled it: "files", "bytes", or None."""
        step = self.config["notice_bytes"]
        if not step:
            return None
        (used, files), (before, files_before) = system.room("/"), self.room
        many = files - files_before >= self.config["num_inodes"] // 8
        if many or used - before >= step:
            self.room = used, files
            return "files" if many else "bytes"
        self.room = min(used, before), min(files, files_before)
        return None

    def _too_much_memory(self, processes: list[Alive]) -> bool:
        most = self.config["memory_bytes"]
        if self.config["group"] and self._counted_memory() > most + MEMORY_OF_SERVER:
            return True
        return sum(process.rss for process in processes) > most and shared_fairly(processes) > most

    def _counted_memory(self) -> int:
        """What the kernel counts for all of us, without what lies on the disk, which is bounded by itself."""
        used = [system.room(path) for path in self.config["disks"]]
        on_disk = sum(num_bytes + files * BYTES_OF_A_FILE for num_bytes, files in used)
        return counted_memory(self.config["group"]) - on_disk

    def _too_many_files(self) -> bool:
        """Each file costs the kernel memory, also an empty one. True while they grow beyond the limit."""
        if not self.config["contained"] or self.config["build"] or self.config["notice_bytes"]:
            return False  # the mount has the limit, or others write to the same disk and the owner is told instead
        before, self.num_files = self.num_files, system.room("/")[1]
        return self.num_files > max(before, self.config["num_inodes"] - 1024)
