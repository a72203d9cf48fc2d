"""Inside the sandbox: how long what a process has started may run, how long it waited for a core, and its end.

Standard library only; sent as source (see box.py).
"""

import os
import signal
import time
from collections.abc import Callable


def wait_for(pid: int, deadline: float) -> bool:
    """Whether a child ended before the deadline. It is left to be waited for. SIGCHLD must be blocked."""
    while True:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return True
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        signal.sigtimedwait([signal.SIGCHLD], left)


class Clock:
    """The wall clock of a run, less what it waited for a core: a busy machine takes nothing of a program's time.

    Waiting counts while the program has few tasks, of the priority they were started with: what it makes itself wait
    for is its own.
    """

    FEW = 4
    LONGEST = 20
    """Times the limit that a run may wait. Beyond it nothing is known of the program."""

    def __init__(self, wall_s: float, told: Callable[[float], None] | None = None) -> None:
        """
        Args:
            told: called with the seconds by which the limit is put off, each time.
        """
        self.started, self.wall_s, self.waited_s, self._told = time.monotonic(), wall_s, 0.0, told
        self.busy = False
        """Whether the limit was met by waiting alone."""

    def wait_for(self, pid: int) -> bool:
        """Whether a child ended before the limit. As the function of that name."""
        while not wait_for(pid, self.started + self.wall_s + self.waited_s):
            waited_s = min(self.waiting(), time.monotonic() - self.started)
            more = waited_s - self.waited_s
            if more < 0.01:
                return False
            if waited_s > self.LONGEST * self.wall_s:
                self.busy = True
                return False
            self.waited_s = waited_s
            if self._told is not None:
                self._told(more)
        return True

    def waiting(self) -> float:
        """Seconds that the tasks below this process have been ready to run and did not; 0 where that is not known."""
        tasks = [
            f"/proc/{pid}/task/{task}" for pid in _descendants(os.getpid()) for task in _entries(f"/proc/{pid}/task")
        ]
        if len(tasks) > self.FEW or not all(map(_has_our_priority, tasks)):
            return 0.0
        return sum(_waited_ns(task) for task in tasks) / 1e9


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _waited_ns(task: str) -> int:
    try:
        with open(f"{task}/schedstat", "rb") as file:
            return int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _has_our_priority(task: str) -> bool:
    """Whether a task's nice value and scheduling policy are those of this process; so it is where it has ended."""
    try:
        with open(f"{task}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return True
    return (int(fields[16]), int(fields[38])) == (os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0))


def reap_all(within_s: float = 5.0) -> bool:
    """Kill whatever descends from this process, which adopts orphans. False where something still lives."""
    until = time.monotonic() + within_s
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
        if time.monotonic() > until:
            return False
        for pid in _descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        signal.sigtimedwait([signal.SIGCHLD], 0.005)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(name))
    found, waiting = [], [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
