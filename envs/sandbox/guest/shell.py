"""Inside the sandbox: the persistent bash, its commands, and what is kept of their output.

Part of the guest (see server.py): standard library only.

bash reads its script from a FIFO, a protected descriptor that it closes for its children. Each command gets three
files of its own under the scratch folder: its text, a FIFO that takes its output, a FIFO that takes its status with
the working directory and the exported variables. None of them is a descriptor the command could close or write to
by accident, and no text in the output means anything.

Where the shell itself ends with a command (``exit``, ``exec``, ``set -e``, ``kill $$``), its exit status is the
command's, and the next command finds a new shell: in the directory and with the exported variables of the last
finished command, where ``exit`` counts as finishing and ``exec`` or a signal does not. Variables that are not
exported, functions and shell options end with the shell.
"""

import fcntl
import os
import time
from collections.abc import Callable
from typing import Protocol

from .process import enter, fork, keep_only
from .system import Config

PIECE = 1 << 18
LEAVING = "exit"
KINDS = ("text", "output", "status")
F_SETPIPE_SZ = 1031


class Watcher(Protocol):
    """Calls back when a descriptor can be read."""

    def watch(self, fd: int, callback: Callable[[], object]) -> None: ...

    def forget(self, fd: int) -> None: ...


class Kept:
    """The head and the tail of a stream of any length."""

    def __init__(self, num_bytes: int) -> None:
        self.room, self.head, self.tail, self.num_seen = num_bytes, bytearray(), bytearray(), 0
        self.num_head = num_bytes // 2
        self.num_tail = num_bytes - self.num_head

    def add(self, piece: bytes) -> None:
        self.num_seen += len(piece)
        missing = self.num_head - len(self.head)
        if missing > 0:
            self.head += piece[:missing]
            piece = piece[missing:]
        self.tail += piece[-self.num_tail :]
        if len(self.tail) > 2 * self.num_tail:
            del self.tail[: -self.num_tail]

    def parts(self) -> tuple[bytes, bytes, int]:
        """(head, tail, number of bytes dropped between them)."""
        tail = bytes(self.tail[-self.num_tail :]) if self.num_tail else b""
        return bytes(self.head), tail, self.num_seen - len(self.head) - len(tail)


class Command:
    """A command that runs in the shell."""

    def __init__(self, number: int, timeout: float, keep: int, reply: Callable[..., None]) -> None:
        self.number, self.reply, self.kept = number, reply, Kept(keep)
        self.name = f"{number}.{os.urandom(6).hex()}"  # not to be guessed, where commands could make it beforehand
        self.started = time.monotonic()
        self.deadline = self.started + timeout
        self.output_fd = self.status_fd = -1
        self.record = b""
        self.widened = False


class Shell:
    def __init__(self, config: Config, watcher: Watcher) -> None:
        self.config, self.watcher = config, watcher
        self.scratch: str = config["scratch"]
        self.pid: int | None = None
        self.command: Command | None = None
        self.cwd: str = config["workdir"]
        self.exports: bytes | None = None
        self.last_code = 0
        self._script_fd = -1
        self._generation = 0
        self._discarded: list[int] = []

    def start(self) -> None:
        """Start bash in the last directory, with the exported variables of the last finished command."""
        self._generation += 1
        script = self._path(f"shell{self._generation}")
        self._fifo(script, 0o644)
        self._script_fd = os.open(script, os.O_RDWR | os.O_NONBLOCK)
        env, first = self.config["env"], "BASH_ARGV0=bash"
        if self.exports is not None:
            state = self._path(f"exports{self._generation}")
            self._file(state, self.exports)
            env, first = {}, f"builtin . '{state}'; BASH_ARGV0=bash"
        self.pid = fork(lambda: self._become_bash(script, env))
        os.write(self._script_fd, first.encode() + b"\n")

    def _become_bash(self, script: str, env: dict[str, str]) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        keep_only((null, null, null))
        enter(self.config)
        for folder in (self.cwd, self.config["workdir"], "/"):
            try:
                os.chdir(folder)
                break
            except OSError:
                continue
        program, *before = self.config["bash"]
        os.execve(program, [*before, "--norc", "--noprofile", script], env)

    def run(self, number: int, text: bytes, timeout: float, keep: int, reply: Callable[..., None]) -> None:
        """Begin a command; ``reply`` is called once with exit_code, killed, parts and seconds."""
        command = Command(number, timeout, keep, reply)
        try:
            self._begin(command, text)
        except OSError as error:  # where commands have our own user, they can damage or fill the scratch folder
            told = f"cannot start a command: {error}\n".encode()
            reply(exit_code=126, killed=None, parts=(told, b"", 0), seconds=time.monotonic() - command.started)

    def _begin(self, command: Command, text: bytes) -> None:
        if self.pid is None:
            self.start()
        source, output, status = (self._path(f"{kind}{command.name}") for kind in KINDS)
        self._file(source, text.replace(b"\0", b""))
        for path in (output, status):
            self._fifo(path, 0o622)
        command.output_fd = os.open(output, os.O_RDONLY | os.O_NONBLOCK)
        command.status_fd = os.open(status, os.O_RDONLY | os.O_NONBLOCK)
        self.watcher.watch(command.output_fd, lambda: self._read_output(command))
        self.watcher.watch(command.status_fd, lambda: self._read_status(command))
        os.write(self._script_fd, self._line(source, output, status).encode())
        self.command = command

    def _line(self, source: str, output: str, status: str) -> str:
        """What bash is told: read the text, run it with its own output and no input, tell the outcome."""
        state = "builtin pwd; builtin printf '\\0'; builtin export -p; builtin printf '\\0'"
        told, left = (
            f"{{ builtin printf '%s\\0' {word}; {state}; }} >'{status}' 2>/dev/null"
            for word in ('"$__verigym_code"', LEAVING)
        )
        code = "__verigym_code=$?"
        # $? is the last command's, as in any shell; with `set -e` on, setting it would end the shell.
        again = f"case $- in *e*) ;; *) __verigym_return {self.last_code};; esac; " if self.last_code else ""
        define = f"__verigym_return() {{ return {self.last_code}; }}; " if self.last_code else ""
        return (
            f"IFS= builtin read -r -d '' __verigym_text <'{source}' || builtin true; {define}"
            f"trap {_quoted(left)} EXIT; "
            f"{{ {again}builtin eval \"$__verigym_text\"; }} </dev/null >'{output}' 2>&1; {code}; "
            f'trap - EXIT; {told} || builtin exit "$__verigym_code"\n'
        )

    def _read_output(self, command: Command) -> None:
        if command.output_fd < 0:
            return
        if self._drain(command.output_fd, command.kept.add, pieces=16):
            self._close(command.output_fd)
            command.output_fd = -1
        elif not command.widened and command.kept.num_seen > 2 * PIECE:
            command.widened = True
            widen(command.output_fd)

    def _read_status(self, command: Command) -> None:
        pieces: list[bytes] = []
        ended = self._drain(command.status_fd, pieces.append)
        command.record += b"".join(pieces)
        if command.record.count(b"\0") >= 3:
            code, cwd, exports = command.record.split(b"\0")[:3]
            self.cwd, self.exports = os.fsdecode(cwd[:-1]), exports
            if code.isdigit():
                self._finish(command, int(code), None)
            else:  # the shell is about to end; its own exit status is the command's
                self.watcher.forget(command.status_fd)
        elif ended:
            self.watcher.forget(command.status_fd)  # the shell could not write it all; its own end tells the rest

    def died(self, status: int) -> None:
        """The shell has ended, by itself or killed; a running command has ended with it."""
        self.pid = None
        self._close(self._script_fd)
        command = self.command
        if command is not None:
            self._read_status(command)  # `exit` tells the directory and the variables before the shell ends
        if self.command is not None:
            code = os.waitstatus_to_exitcode(status)
            self._finish(self.command, code if code >= 0 else 128 - code, None)
        if command is not None:
            self.start()

    def killed(self, reason: str, *, restart: bool = True) -> None:
        """Everything was killed, the shell with it; the command ends for this reason and a new shell starts."""
        if self.pid is not None:
            self.pid = None
            self._close(self._script_fd)
        if self.command is not None:
            self._finish(self.command, None, reason)
        for fd in list(self._discarded):
            self._discard_end(fd)
        if restart:
            self.start()

    def _finish(self, command: Command, code: int | None, killed: str | None) -> None:
        self.command = None
        self.last_code = code if code is not None else 137
        if command.output_fd >= 0 and not self._drain(command.output_fd, command.kept.add):
            # A background job still holds it: what it prints from now on goes nowhere, and does not block it.
            fd = command.output_fd
            self._discarded.append(fd)
            self.watcher.watch(fd, lambda: self._discard(fd))
        elif command.output_fd >= 0:
            self._close(command.output_fd)
        self._close(command.status_fd)
        for kind in KINDS:
            try:
                os.unlink(self._path(f"{kind}{command.name}"))
            except OSError:
                pass
        command.reply(
            exit_code=code, killed=killed, parts=command.kept.parts(), seconds=time.monotonic() - command.started
        )

    def _discard(self, fd: int) -> None:
        if self._drain(fd, lambda piece: None, pieces=16):
            self._discard_end(fd)

    def _discard_end(self, fd: int) -> None:
        self._discarded.remove(fd)
        self._close(fd)

    def _close(self, fd: int) -> None:
        self.watcher.forget(fd)
        os.close(fd)

    @staticmethod
    def _drain(fd: int, take: Callable[[bytes], object], pieces: int = 1 << 30) -> bool:
        """Read what is there. True at the end of the stream."""
        for _ in range(pieces):
            try:
                piece = os.read(fd, PIECE)
            except BlockingIOError:
                return False
            if not piece:
                return True
            take(piece)
        return False

    def _path(self, name: str) -> str:
        return f"{self.scratch}/{name}"

    def _fifo(self, path: str, mode: int) -> None:
        os.makedirs(self.scratch, exist_ok=True)  # where the commands are of our own user, they may have removed it
        os.mkfifo(path)
        os.chmod(path, mode)

    def _file(self, path: str, data: bytes) -> None:
        os.makedirs(self.scratch, exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o644)


def widen(pipe: int) -> None:
    """Let a pipe hold more, where the system allows it: less switching between its two ends."""
    try:
        fcntl.fcntl(pipe, F_SETPIPE_SZ, 1 << 20)
    except OSError:
        pass


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
