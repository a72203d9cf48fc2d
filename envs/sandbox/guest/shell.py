"""Inside the sandbox: the persistent bash, its commands, and what is kept of their output.

Part of the guest (see server.py): standard library only.

bash reads its script from a FIFO, a protected descriptor that it closes for its children. A command's text is followed
by a line that reports its outcome over a FIFO of this command alone, whose name holds the shell's process id and a
random word; nothing that is printed means anything, and no forked child can report in the shell's place.

Text runs in one of two ways. Where it is plain, nothing was left running and the shell's descriptors are as they
were, it is the shell's own input, as in any script: all that bash keeps from command to command (``$_``, PIPESTATUS,
what traps see) is bash's own. Else ``eval`` runs it, with an output of its own, and finds its end and its faults.

What has been read from the FIFO up to the empty line at its end has been done. A shell that has read it and reported
nothing no longer runs what it is given (``set -n``, ``set -r``); it is replaced, and the command says "shell". Where a
new one does not run what it is given either, the sandbox has failed.

Where the shell itself ends with a command (``exit``, ``exec``, ``set -e``, ``kill $$``), its exit status is the
command's, and the next command finds a new shell: in the directory and with the exported variables of the last
finished command, where ``exit`` counts as finishing and ``exec`` or a signal does not. Variables that are not
exported, functions and shell options end with the shell.
"""

import fcntl
import os
import re
import struct
import time
from collections.abc import Callable
from signal import SIGKILL
from typing import Protocol

from .process import enter, fork, keep_only
from .system import Config
from .words import (
    CHANGES_READING,
    EVALS,
    EXITS,
    READING,
    SPARING,
    Told,
    again,
    check,
    empty,
    nothing,
    on_exit,
    os_bytes,
    plain,
    quoted,
    quoted_bytes,
    read_report,
    report,
    tell,
)

PIECE = 1 << 18
MOST_CHECKED = 65536
EPOLLIN, EPOLLOUT = 1, 4
SETTLES_S = 0.02
F_SETPIPE_SZ, FIONREAD = 1031, 0x541B


class Watcher(Protocol):
    """Calls back when a descriptor can be read, or what ``events`` says."""

    def watch(self, fd: int, callback: Callable[[], object], events: int = EPOLLIN) -> None: ...

    def forget(self, fd: int) -> None: ...

    def reap(self) -> None:
        """Wait for what has ended; tells the shell of its end."""
        ...

    def supervisors(self) -> set[int]:
        """Process ids of what runs beside the shell."""
        ...


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
        self.word = os.urandom(8).hex()  # not known to anything that ran before
        self.started = time.monotonic()
        self.deadline = self.started + timeout
        self.output_fd = self.status_fd = -1
        self.text = b""
        self.output, self.status = "", ""
        self.record = b""
        self.direct = self.checking = self.moved = self.widened = self.asked_again = False
        self.num_silent = 0
        self.replaced = False


class Shell:
    def __init__(self, config: Config, watcher: Watcher) -> None:
        self.config, self.watcher = config, watcher
        self.scratch: str = config["scratch"]
        self.pid: int | None = None
        self.command: Command | None = None
        self.cwd: str = config["workdir"]
        self.exports: bytes | None = None
        self.last_code, self.last_codes = 0, [0]
        self._told: Told | None = None
        self._folder = self._out = self._session = ""
        self._num_outs = 0
        self._strays: set[int] = set()
        """What the shell had left when it got its output: it holds another."""
        self._script_fd = self._out_fd = -1
        self._unsent = b""
        self._bare = self._few = False
        self._armed = self._users_trap = ""
        self._generation = 0
        self._discarded: list[int] = []

    def start(self) -> None:
        """Start bash in the last directory, with the exported variables of the last finished command."""
        self._generation += 1
        self._folder = f"{self.scratch}/shell{self._generation}"
        os.makedirs(self._folder)
        os.chmod(self._folder, 0o711)
        script, self._out, self._num_outs = f"{self._folder}/bash", f"{self._folder}/out", 0
        self._session = os.urandom(8).hex()
        self._file(f"{self._folder}/tell", tell(self._session).encode())
        self._fifo(script, 0o644)
        self._fifo(self._out, 0o622)
        self._script_fd = os.open(script, os.O_RDWR | os.O_NONBLOCK)
        self._out_fd = os.open(self._out, os.O_RDONLY | os.O_NONBLOCK)
        self._told, self._armed, self._unsent = None, "", b""
        self._bare = self._few = False
        self._strays = set()
        env = self.config["env"] if self.exports is None else {}
        self.pid = fork(lambda: self._become_bash(env))
        self.watcher.watch(self._out_fd, self._read_out)
        self._send(self._first_lines() + os_bytes(again(self.last_code, self.last_codes, "x")))

    def _become_bash(self, env: dict[str, str]) -> None:
        null, output = os.open(os.devnull, os.O_RDWR), os.open(self._out, os.O_WRONLY)
        keep_only((null, output, output))
        enter(self.config)
        os.chdir(self._folder)  # bash knows its script as "bash", and says so in its messages
        program, *before = self.config["bash"]
        os.execve(program, [*before, "--norc", "--noprofile", "bash"], env)

    def _first_lines(self) -> bytes:
        places = [quoted(place) for place in (self.cwd, self.config["workdir"], "/") if place]
        cd = " || ".join(f"builtin cd -- {place}" for place in places)
        if self.exports is None:
            text = f"{{ {cd}; }} 2>/dev/null; builtin unset OLDPWD; builtin export OLDPWD\n"
        else:
            state, before = f"{self._folder}/exports", f"{self._folder}/before"
            old = re.search(rb"^export OLDPWD(?:=.*?)?\n(?=export |\Z)", self.exports, re.M | re.S)
            self._file(state, self.exports)
            self._file(before, old[0] if old else b"builtin unset OLDPWD\n")
            same = f"[ . -ef {places[0]} ]" if self.cwd else "true"
            text = (
                f"builtin . '{state}'; {{ builtin cd -- \"$PWD\" && {same} || {cd}; }} 2>/dev/null; "
                f"builtin . '{before}'\n"
            )
        return text.encode("utf-8", "surrogateescape")

    def run(self, number: int, text: bytes, timeout: float, keep: int, reply: Callable[..., None]) -> None:
        """Begin a command; ``reply`` is called once with exit_code, killed, parts and seconds."""
        command = Command(number, timeout, keep, reply)
        self.watcher.reap()
        try:
            self._begin(command, text.replace(b"\0", b""))
        except OSError as error:  # where commands have our own user, they can damage or fill the scratch folder
            told = f"cannot start a command: {error}\n".encode()
            seconds = time.monotonic() - command.started
            reply(exit_code=126, killed=None, parts=(told, b"", 0), seconds=seconds, cwd=self.cwd)

    def _begin(self, command: Command, text: bytes) -> None:
        if self.pid is None:
            self.start()
        command.text = text
        command.status = f"{self._folder}/{self.pid}.{command.word}"
        self._fifo(command.status, 0o622)
        os.link(command.status, f"{self._folder}/.{command.word}")
        command.status_fd = os.open(command.status, os.O_RDONLY | os.O_NONBLOCK)
        self.watcher.watch(command.status_fd, lambda: self._status_told(command))
        self._drain(self._out_fd, lambda piece: None)
        self.command = command
        told = self._told
        command.moved = told is not None and not self._few and not self._alone()
        if command.moved:
            self._send(self._other_output())
        asks = len(text) > MOST_CHECKED or text.endswith(b"\\") or CHANGES_READING.search(text) or empty(text)
        if told is None or asks or told.options & READING or "r" in told.letters:
            self._go(command, direct=False)
        elif plain(text) and not command.moved:
            self._go(command, direct=True)
        elif told.form != 1:
            self._go(command, direct=False)
        else:
            command.checking = True
            self._send(check(self._folder, command.word, text, bare=self._bare))

    def _go(self, command: Command, *, direct: bool) -> None:
        """Give the text to bash: as its own input, or to ``eval`` with an output of its own."""
        command.direct, command.checking = direct, False
        if not direct and not self._few:
            command.output = f"{self._folder}/o{command.word}"
            self._fifo(command.output, 0o622)
            command.output_fd = os.open(command.output, os.O_RDONLY | os.O_NONBLOCK)
            self.watcher.watch(command.output_fd, lambda: self._read_output(command))
        if direct or self._told is None or self._told.form:
            self._send(self._lines(command))
        else:
            command.asked_again = True  # there is no way left to run text: the silence ends this shell

    def _may_exit(self, text: bytes) -> bool:
        """Whether text may end the shell, and asks for no traps, which would show ours."""
        may = EXITS.search(text) or (self._told is not None and set(self._told.letters) & set("eu"))
        return bool(may) and b"trap" not in text

    def _other_output(self) -> bytes:
        """What gives the shell an output of its own again; what others still write to the old one goes nowhere."""
        self._num_outs += 1
        self._forsake()
        self._out = f"{self._folder}/out{self._num_outs}"
        self._fifo(self._out, 0o622)
        self._out_fd = os.open(self._out, os.O_RDONLY | os.O_NONBLOCK)
        self.watcher.watch(self._out_fd, self._read_out)
        return os_bytes(f"\\command exec </dev/null >'{self._out}' 2>&1\n")

    def _alone(self) -> bool:
        """Whether nothing but the shell writes to its output, and its descriptors are as they were."""
        if self._bare:
            self._settle()
        try:
            children = set()
            for pid in (os.getpid(), self.pid):
                with open(f"/proc/{pid}/task/{pid}/children") as file:
                    children |= {int(child) for child in file.read().split()}
            children -= self.watcher.supervisors() | {self.pid or 0}
            if not children <= self._strays:
                self._strays = children
                return False
            return self._holds_output()
        except OSError:
            return False

    def _settle(self) -> None:
        """Let the shell finish the line that told the last outcome: wait for its child, and undo its redirections."""
        until = time.monotonic() + SETTLES_S
        while _num_unread(self._script_fd) and time.monotonic() < until:
            time.sleep(0.0002)

    def _holds_output(self) -> bool:
        """Whether the shell's descriptors 0 to 2 are what they were given as. Raises OSError."""
        out = os.stat(self._out).st_ino
        return [_inode(self.pid, number) for number in range(3)] == [os.stat(os.devnull).st_ino, out, out]

    def _lines(self, command: Command) -> bytes:
        """What bash is told: set right what is not, run the text with its own output and no input, tell the outcome."""
        told, word, text = self._told, command.word, command.text
        user_trap = told.trap if told is not None else ""
        before = ""
        if self._armed:
            user_trap = self._users_trap if user_trap == self._armed else user_trap
            disarm = f"\\builtin trap -- {quoted(user_trap) if user_trap else '-'} EXIT"
            before = f"{disarm}\n" if self._bare else f"{{ {disarm}; }} >/dev/null 2>&1\n"
            self._armed = ""
        if self._may_exit(text) and not self._bare:
            self._users_trap, self._armed = user_trap, on_exit(self._folder, word, user_trap)
            before = f"{{ \\builtin trap -- {quoted(self._armed)} EXIT; }} >/dev/null 2>&1\n"
        before += again(
            self.last_code,
            self.last_codes,
            word,
            pipefail=told is not None and "pipefail" in told.options,
            count=told is None or told.counts,
            bare=self._bare,
        )
        after, bare = "", self._bare or bool(SPARING.search(text))
        if not command.direct:
            form = (told.form if told is not None else 1) or 1
            text = EVALS[form].encode() + b" " + quoted_bytes(text)
            after = f" </dev/null >'{command.output}' 2>&1" if command.output else ""
            if form == 1:
                after += f" && {f'(r{word}=)' if bare else nothing(word)}"
            after += "\n"  # where text ended in a backslash, the line after it is misread
        # The empty line is read when the report is done: what has been read up to its end has been done.
        tells = report(self._folder, word, self._session, bare=bare)
        return os_bytes(before) + text + os_bytes(f"{after}\n{tells}\n")

    def silent(self) -> bool:
        """Whether the shell has read all it was given and told nothing: it no longer runs what it is given."""
        command = self.command
        if command is None or self._unsent or self.pid is None:
            return False
        if not command.checking:
            self._read_status(command)
        if self.command is None or _num_unread(self._script_fd):
            command.num_silent = 0
            return False
        command.num_silent += 1
        if command.num_silent < 3:
            return False
        if command.checking:
            self._go(command, direct=False)
            return False
        if not command.asked_again:
            command.asked_again, command.num_silent = True, 0
            self._send(os_bytes(report(self._folder, command.word, self._session, bare=True) + "\n"))
            return False
        return True

    def replace(self) -> bool:
        """End the shell, which no longer runs what it is given. False where it never has."""
        if self.command is not None and self.pid is not None:
            self.command.replaced = True
            os.kill(self.pid, SIGKILL)
        return self._told is not None

    def _send(self, data: bytes) -> None:
        self._unsent += data
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._script_fd, self._unsent) :]
        except BlockingIOError:
            self.watcher.watch(self._script_fd, lambda: self._send(b""), EPOLLOUT)
            return
        self.watcher.forget(self._script_fd)

    def _read_out(self) -> None:
        """Output of the shell itself: of a command that has it, or of a job that was left, which goes nowhere."""
        command = self.command
        take = command.kept.add if command is not None and not command.output else lambda piece: None
        if self._drain(self._out_fd, take, pieces=16):
            self.watcher.forget(self._out_fd)
        elif command is not None and not command.output:
            self._widen(command, self._out_fd)

    def _read_output(self, command: Command) -> None:
        if command.output_fd < 0:
            return
        if self._drain(command.output_fd, command.kept.add, pieces=16):
            self._close(command.output_fd)
            command.output_fd = -1
        else:
            self._widen(command, command.output_fd)

    @staticmethod
    def _widen(command: Command, fd: int) -> None:
        if not command.widened and command.kept.num_seen > 2 * PIECE:
            command.widened = True
            widen(fd)

    def _status_told(self, command: Command) -> None:
        """Something was written to the FIFO, or whoever had it has closed it; another may come."""
        if command.checking:
            ended = self._drain_status(command)
            if ended:
                objections, command.record = command.record, b""
                self._go(command, direct=not objections and (not command.moved or self._holds_output()))
        else:
            ended = self._read_status(command)
        if ended and self.command is command:
            # Opened anew it is not at an end. Whoever has come since finds it with a reader all the time.
            before = command.status_fd
            command.status_fd = os.open(command.status, os.O_RDONLY | os.O_NONBLOCK)
            self._close(before)
            self.watcher.watch(command.status_fd, lambda: self._status_told(command))

    def _drain_status(self, command: Command) -> bool:
        pieces: list[bytes] = []
        ended = self._drain(command.status_fd, pieces.append)
        command.record += b"".join(pieces)
        return ended

    def _read_status(self, command: Command) -> bool:
        """Finish the command where its report is there. True where nobody writes to the FIFO now."""
        if not self._drain_status(command):
            return False
        if not command.record:
            return True
        told = read_report(command.record, self._session) or read_report(command.record, command.word)
        command.record = b""
        if told is None:
            return True
        self._told, self.exports = told, told.exports
        self._few = self._few or command.asked_again or b"ulimit" in command.text
        self._bare = self._few or told.aliased
        self.cwd = self._place()
        if told.kind == "end":
            self.last_code, self.last_codes = told.code, told.codes
            self._finish(command, told.code, None)
        return True

    def _place(self) -> str:
        """The shell's directory, as the kernel has it or, of a shell that has just ended, as PWD says."""
        try:
            return os.readlink(f"/proc/{self.pid}/cwd")
        except OSError:
            said = re.search(rb'^export PWD="([^"\\$`]*)"$', self.exports or b"", re.M)
            return said[1].decode("utf-8", "surrogateescape") if said else ""

    def died(self, status: int) -> None:
        """The shell has ended, by itself or killed; a running command has ended with it."""
        command = self.command
        if command is not None and not command.checking:
            self._read_status(command)  # `exit` tells the directory and the variables before the shell ends
        self.pid = None
        if self.command is not None:
            code = os.waitstatus_to_exitcode(status)
            self.last_code = code if code >= 0 else 128 - code
            self.last_codes = [self.last_code]
            replaced = self.command.replaced
            self._finish(self.command, None if replaced else self.last_code, "shell" if replaced else None)
        self._leave()
        if command is not None:
            self.start()

    def killed(self, reason: str, *, restart: bool = True) -> None:
        """Everything was killed, the shell with it; the command ends for this reason and a new shell starts."""
        had, self.pid = self.pid is not None, None
        if self.command is not None:
            self.last_code, self.last_codes = 137, [137]
            self._finish(self.command, None, reason)
        if had:
            self._leave()
        for fd in list(self._discarded):
            self._discard_end(fd)
        if restart:
            self.start()

    def _leave(self) -> None:
        """The shell is gone; jobs that it left may still hold its output."""
        self._close(self._script_fd)
        self._forsake()

    def _forsake(self) -> None:
        fd = self._out_fd
        self._discarded.append(fd)
        self.watcher.watch(fd, lambda: self._discard(fd))
        self._discard(fd)

    def _finish(self, command: Command, code: int | None, killed: str | None) -> None:
        self.command = None
        if not command.output:
            self._drain(self._out_fd, command.kept.add)
        elif command.output_fd >= 0 and not self._drain(command.output_fd, command.kept.add):
            # A background job still holds it: what it prints from now on goes nowhere, and does not block it.
            fd = command.output_fd
            self._discarded.append(fd)
            self.watcher.watch(fd, lambda: self._discard(fd))
        elif command.output_fd >= 0:
            self._close(command.output_fd)
        self._close(command.status_fd)
        for path in (command.output, command.status, f"{self._folder}/.{command.word}"):
            try:
                os.unlink(path)
            except OSError:
                pass
        seconds = time.monotonic() - command.started
        command.reply(exit_code=code, killed=killed, parts=command.kept.parts(), seconds=seconds, cwd=self.cwd)

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

    def _fifo(self, path: str, mode: int) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)  # commands of our own user may have removed it
        os.mkfifo(path)
        os.chmod(path, mode)

    @staticmethod
    def _file(path: str, data: bytes) -> None:
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o644)


def widen(pipe: int) -> None:
    """Let a pipe hold more, where the system allows it: less switching between its two ends."""
    try:
        fcntl.fcntl(pipe, F_SETPIPE_SZ, 1 << 20)
    except OSError:
        pass


def _num_unread(pipe: int) -> int:
    """How many bytes nobody has read yet."""
    return struct.unpack("i", fcntl.ioctl(pipe, FIONREAD, b"\0" * 4))[0]


def _inode(pid: int | None, fd: int) -> int:
    """Of the file that a process has as this descriptor; 0 where the kernel does not say."""
    with open(f"/proc/{pid}/fdinfo/{fd}", "rb") as file:
        found = re.search(rb"^ino:\s*(\d+)", file.read(), re.M)
    return int(found[1]) if found else 0
