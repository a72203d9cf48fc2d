"""Inside the sandbox: one bash process, the FIFO that is its script, and the one that takes its output.

Part of the guest (see server.py): standard library only.
"""

import os
import re
import time
from collections.abc import Callable

from .memory import Memory
from .process import enter, fork, keep_only
from .reports import tell
from .streams import EPOLLOUT, Forsaken, Watcher, drain, fifo, nowhere, num_unread, reader, write_file
from .system import Config

SETTLES_S = 0.02


class Bash:
    """A bash that reads a FIFO as its script, a protected descriptor that it closes for its children."""

    def __init__(self, config: Config, watcher: Watcher, folder: str, env: dict[str, str]) -> None:
        """
        Args:
            folder: to be made, for what belongs to this process alone.
        Raises:
            OSError: it cannot be made, or no process can be started.
        """
        self.config, self._watcher, self.folder = config, watcher, folder
        self.session = os.urandom(8).hex()
        """A random word, part of the names of what its reports need."""
        os.makedirs(folder)
        os.chmod(folder, 0o711)
        write_file(f"{folder}/tell", tell(self.session).encode())
        fifo(f"{folder}/bash", 0o644)
        self._script = os.open(f"{folder}/bash", os.O_RDWR | os.O_NONBLOCK)
        fifo(f"{folder}/quick", 0o622)
        self.quick = os.open(f"{folder}/quick", os.O_RDWR | os.O_NONBLOCK)
        """Takes quick reports; of this side too, so that it is never at an end."""
        self._out, self._num_outs = f"{folder}/out", 0
        self.out = reader(self._out)
        """Takes the shell's own output."""
        self.unsent = b""
        self._strays: set[int] = set()
        """What the shell had left when it got its output: it holds another."""
        self._children: list[int] = []
        self._hidden = False
        self._memory: Memory | None = None
        self._is_closed = False
        """Whether its memory cannot be read."""
        self.pid = fork(lambda: self._become(env))

    def _become(self, env: dict[str, str]) -> None:
        null, output = os.open(os.devnull, os.O_RDWR), os.open(self._out, os.O_WRONLY)
        keep_only((null, output, output))
        enter(self.config)
        os.chdir(self.folder)  # bash knows its script as "bash", and says so in its messages
        program, *before = self.config["bash"]
        os.execve(program, [*before, "--norc", "--noprofile", "bash"], env)

    def send(self, data: bytes) -> None:
        """Give it lines of its script, now or when it has read what is before them."""
        waited = bool(self.unsent)
        self.unsent += data
        try:
            while self.unsent:
                self.unsent = self.unsent[os.write(self._script, self.unsent) :]
        except BlockingIOError:
            self._watcher.watch(self._script, lambda: self.send(b""), EPOLLOUT)
            return
        if waited:
            self._watcher.forget(self._script)

    @property
    def memory(self) -> Memory | None:
        """None where the kernel, or its program, does not let us."""
        if self._memory is None and not self._is_closed:
            try:
                self._memory = Memory(self.pid)
            except OSError:
                self._is_closed = True
        return self._memory

    def hide_script(self) -> None:
        """The shell has its script open by now; whoever else read it would take its lines, and learn their words."""
        if self._hidden:
            return
        self._hidden = True
        try:
            os.chmod(f"{self.folder}/bash", 0)  # also by way of /proc/PID/fd
            os.unlink(f"{self.folder}/bash")
        except OSError:
            pass  # commands of our own user may have removed it

    def count_lines_anew(self) -> None:
        """Where its memory can be written to; else its messages count on."""
        try:
            if self.memory is not None:
                self.memory.count_lines_anew()
        except OSError:
            pass

    def has_read_all(self) -> bool:
        return not self.unsent and not num_unread(self._script)

    def settle(self) -> None:
        """Let it finish the line that told the last outcome: wait for its child, and undo its redirections."""
        until = time.monotonic() + SETTLES_S
        while num_unread(self._script) and time.monotonic() < until:
            time.sleep(0.0002)

    def other_output(self, forsaken: Forsaken, read: Callable[[], object], after: str) -> bytes:
        """The line that gives it an output of its own again, and does what is after; what others still write to the old
        one goes nowhere."""
        self._num_outs += 1
        forsaken.add(self.out)
        self._out = f"{self.folder}/out{self._num_outs}"
        self.out = reader(self._out)
        self._watcher.watch(self.out, read)
        return f"\\command exec </dev/null >'{self._out}' 2>&1{after}\n".encode("utf-8", "surrogateescape")

    def check_beside(self, text: bytes, status: str) -> None:
        """Have another bash tell over a FIFO what there is against a text; nothing where it is whole and valid."""
        place, memory = f"{self.folder}/text", self.memory
        options = ["-O", "extglob"] if memory is not None and memory.extends_globs() else []
        write_file(place, text + b"\n")

        def read() -> None:
            null, to = os.open(os.devnull, os.O_RDWR), os.open(status, os.O_WRONLY)
            keep_only((null, to, to))
            enter(self.config)
            program, *before = self.config["bash"]
            try:
                os.execve(program, [*before, "--norc", "--noprofile", *options, "-n", place], {"LC_ALL": "C"})
            except OSError:
                os.write(1, b"not read")

        fork(read)

    def is_alone(self) -> bool:
        """Whether nothing but the shell writes to its output, as far as its children and orphans tell."""
        try:
            if not self._children:
                self._children = [
                    os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY) for pid in (os.getpid(), self.pid)
                ]
            listed = b"".join(_contents(fd) for fd in self._children)
        except OSError:
            return False
        children = set(map(int, listed.split())) - self._watcher.supervisors() - {self.pid}
        if children <= self._strays:
            return True
        self._strays = children
        return False

    def holds_output(self) -> bool:
        """Whether its descriptors 0 to 2 are what they were given as."""
        try:
            out = os.stat(self._out).st_ino
            return [_inode(self.pid, number) for number in range(3)] == [os.stat(os.devnull).st_ino, out, out]
        except OSError:
            return False

    def place(self) -> str:
        """Its directory as the kernel has it. Raises OSError where it has ended."""
        return os.readlink(f"/proc/{self.pid}/cwd")

    def leave(self, forsaken: Forsaken) -> None:
        """It has ended; jobs that it left may still hold its output."""
        for fd in (self._script, self.quick):
            self._watcher.forget(fd)
        for fd in (self._script, self.quick, *self._children):
            os.close(fd)
        if self._memory is not None:
            self._memory.close()
        forsaken.add(self.out)

    def forget_output(self) -> None:
        drain(self.out, nowhere)


def _contents(fd: int) -> bytes:
    """Of a file of /proc, read anew."""
    data = piece = os.pread(fd, 4096, 0)
    while piece:
        piece = os.pread(fd, 4096, len(data))
        data += piece
    return data


def _inode(pid: int, fd: int) -> int:
    """Of the file that a process has as this descriptor; 0 where the kernel does not say."""
    with open(f"/proc/{pid}/fdinfo/{fd}", "rb") as file:
        found = re.search(rb"^ino:\s*(\d+)", file.read(), re.M)
    return int(found[1]) if found else 0
