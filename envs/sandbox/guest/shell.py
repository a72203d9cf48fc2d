"""Inside the sandbox: the session, which is one persistent bash after the other.

Part of the guest (see server.py): standard library only.

A command's text is followed by a line that reports its outcome; nothing that is printed means anything. Where the text
is known to change nothing of a shell whose traps, options and functions are known (``grammar.py``), a builtin of that
shell reports. Else a forked child does, over a FIFO of this command alone, whose name holds the shell's process id and
a random word, so that no other forked child can report in the shell's place.

Text runs in one of two ways. Where it is whole and valid, nothing was left running and the shell's descriptors are as
they were, it is the shell's own input, as in any script: all that bash keeps from command to command (``$_``,
PIPESTATUS, what traps see) is bash's own. Else ``eval`` runs it, with an output of its own, and finds its end and its
faults.

What has been read from the script up to the empty line at its end has been done. A shell that has read it and reported
nothing no longer runs what it is given (``set -n``, ``set -r``); it is replaced, and the command says "shell". Where a
new one does not run what it is given either, the sandbox has failed.

Where the shell itself ends with a command (``exit``, ``exec``, ``set -e``, ``kill $$``), its exit status is the
command's, and the next command finds a new shell: in the directory and with the exported variables of the last
finished command, where ``exit`` counts as finishing and ``exec`` or a signal does not. Variables that are not
exported, functions and shell options end with the shell.
"""

import os
import time
from collections.abc import Callable
from signal import SIGKILL

from .bash import Bash
from .command import Command
from .grammar import read
from .known import Known
from .reports import read_quick, read_report, report
from .streams import Forsaken, Watcher, drain, nowhere
from .system import Config
from .words import (
    CHANGES_READING,
    READING,
    again,
    check,
    empty,
    os_bytes,
)

MOST_CHECKED = 65536


class Shell:
    def __init__(self, config: Config, watcher: Watcher) -> None:
        self.config, self.watcher = config, watcher
        self.command: Command | None = None
        self.known = Known(config)
        self._bash: Bash | None = None
        self._generation = 0
        self._forsaken = Forsaken(watcher)

    @property
    def pid(self) -> int | None:
        return None if self._bash is None else self._bash.pid

    def start(self) -> None:
        """Start bash in the last directory, with the exported variables of the last finished command."""
        self._generation += 1
        folder = f"{self.config['scratch']}/{self._generation}"
        env = self.config["env"] if self.known.state()[1] is None else {}
        bash = self._bash = Bash(self.config, self.watcher, folder, env)
        self.watcher.watch(bash.out, self._read_out)
        self.watcher.watch(bash.quick, self._quick_told)
        self.known.forget()
        bash.send(self.known.first_lines(folder) + os_bytes(again(self.known.last_code, self.known.last_codes, "x")))

    def run(self, number: int, text: bytes, timeout: float, keep: int, reply: Callable[..., None]) -> None:
        """Begin a command; ``reply`` is called once with exit_code, killed, parts and seconds."""
        command = Command(number, text, timeout, keep, reply)
        self.watcher.reap()
        if b"\0" in text:
            told = b"a command cannot hold a NUL byte; nothing was run\n"
            reply(exit_code=126, killed=None, parts=(told, b"", 0), seconds=0.0, cwd=self.known.cwd)
            return
        try:
            self._begin(command)
        except OSError as error:  # where commands have our own user, they can damage or fill the scratch folder
            told = f"cannot start a command: {error}\n".encode()
            seconds = time.monotonic() - command.started
            reply(exit_code=126, killed=None, parts=(told, b"", 0), seconds=seconds, cwd=self.known.cwd)

    def _begin(self, command: Command) -> None:
        if self._bash is None:
            self.start()
        bash, told, text = self._bash, self.known.told, command.text
        assert bash is not None
        drain(bash.out, nowhere)
        if self.known.bare:
            bash.settle()
        command.moved = told is not None and not self.known.few and not self._has_all(bash)
        asks = len(text) > MOST_CHECKED or text.endswith(b"\\") or CHANGES_READING.search(text) or empty(text)
        mine = told is not None and not asks and not told.options & READING and "r" not in told.letters
        known = read(text) if mine and not command.moved else None
        command.still = mine and self.known.is_watched(text, bash)
        command.quick = known is not None and not command.still and self.known.is_quiet(known)
        command.asks = known is None or known.asks
        if not command.quick and not (command.still and known is not None):
            command.open_status(self.watcher, bash.folder, bash.pid, lambda: self._status_told(command))
        self.command = command
        if command.moved:
            bash.send(bash.other_output(self._forsaken, self._read_out, self.known.last_word()))
            self.known.counted = False
        if known is not None:
            self._go(command, direct=True)
        elif told is None or not mine or (told.form != 1 and not command.still):
            self._go(command, direct=False)
        else:
            command.checking = True
            self.known.counted = False
            if command.still:
                bash.check_beside(text, command.status)
                return
            bash.send(check(bash.folder, command.word, text, bare=self.known.bare))

    def _has_all(self, bash: Bash) -> bool:
        """Whether nothing but the shell writes to its output, and its descriptors are as they were. Where a trap would
        see the line that gives it another output, what a job prints stays among what is printed."""
        alone = bash.is_alone() or (self.known.told is not None and self.known.told.sees_commands)
        return alone and (self.known.unchanged or bash.holds_output())

    def _go(self, command: Command, *, direct: bool) -> None:
        """Give the text to bash: as its own input, or to ``eval`` with an output of its own."""
        assert self._bash is not None
        command.direct, command.checking = direct, False
        if not direct and not self.known.few:
            command.open_output(self.watcher, self._bash.folder)
        if direct or self.known.told is None or self.known.told.form:
            self._bash.send(self.known.lines(command, self._bash))
        else:
            command.asked_again = True  # there is no way left to run text: the silence ends this shell

    def silent(self) -> bool:
        """Whether the shell has read all it was given and told nothing: it no longer runs what it is given."""
        command, bash = self.command, self._bash
        if command is None or bash is None or bash.unsent or command.still:
            return False
        if command.quick:
            self._quick_told()
        elif not command.checking:
            self._read_status(command)
        if self.command is None or not bash.has_read_all():
            command.num_silent = 0
            return False
        command.num_silent += 1
        if command.num_silent < 3:
            return False
        if command.checking:
            self._go(command, direct=False)
            return False
        if not command.asked_again:
            self._ask_again(command, bash)
            return False
        return True

    def _ask_again(self, command: Command, bash: Bash) -> None:
        command.asked_again, command.num_silent = True, 0
        if command.quick:
            command.quick = self.known.counted = self.known.unchanged = False
            command.open_status(self.watcher, bash.folder, bash.pid, lambda: self._status_told(command))
        bash.send(os_bytes(report(bash.folder, command.word, bash.session, bare=True) + "\n"))

    def look_in(self) -> float | None:
        """How long to wait before ``look``; None where there is nothing to look for."""
        command = self.command
        if command is None or not command.still or command.checking:
            return None
        return min(0.02, max(0.001, (time.monotonic() - command.started) / 8))

    def look(self) -> None:
        """Finish the command whose end nobody tells, where the shell has read what comes after it."""
        command, bash = self.command, self._bash
        if command is None or bash is None or not command.still or command.checking or not bash.has_read_all():
            return
        memory = bash.memory
        try:
            assert memory is not None
            runs, (sees, watched), code = memory.runs(), memory.traps(), memory.code()
        except OSError:
            runs, sees, watched, code = True, False, False, 0
        if not runs:
            self.replace()
        elif watched:
            self.known.learn_still(command.text, code, sees_commands=sees)
            self.known.cwd = self.known.place(bash)
            self._finish(command, code, None)
        else:
            command.still = False
            if command.status_fd < 0:
                command.open_status(self.watcher, bash.folder, bash.pid, lambda: self._status_told(command))
            bash.send(os_bytes(report(bash.folder, command.word, bash.session) + "\n"))

    def replace(self) -> bool:
        """End the shell, which no longer runs what it is given. False where it never has."""
        if self.command is not None and self._bash is not None:
            self.command.replaced = True
            os.kill(self._bash.pid, SIGKILL)
        return self.known.told is not None

    def _read_out(self) -> None:
        """Output of the shell itself: of a command that has it, or of a job that was left, which goes nowhere."""
        command, bash = self.command, self._bash
        assert bash is not None
        takes = command is not None and not command.output
        if drain(bash.out, command.kept.add if takes and command is not None else nowhere, pieces=16):
            self.watcher.forget(bash.out)
        elif takes and command is not None:
            command.widen(bash.out)

    def _quick_told(self) -> None:
        """Something was written to the FIFO of quick reports: the outcome, or what nobody asked for."""
        command, bash = self.command, self._bash
        if bash is None:
            return
        pieces: list[bytes] = []
        drain(bash.quick, pieces.append, pieces=16)
        if command is None or not command.quick:
            return
        command.record = (command.record + b"".join(pieces))[-MOST_CHECKED * 16 :]
        quick = read_quick(command.record, command.word, bash.pid)
        if quick is None:
            return
        self.known.learn_quick(quick)
        self.known.cwd = self.known.place(bash)
        self._finish(command, quick.code, None)

    def _status_told(self, command: Command) -> None:
        """Something was written to the FIFO, or whoever had it has closed it; another may come."""
        if command.checking:
            ended = command.drain_status()
            if ended:
                objections, command.record = command.record, b""
                holds = not command.moved or (self._bash is not None and self._bash.holds_output())
                self._go(command, direct=not objections and holds)
        else:
            ended = self._read_status(command)
        if ended and self.command is command:
            command.reopen_status(self.watcher, lambda: self._status_told(command))

    def _read_status(self, command: Command) -> bool:
        """Finish the command where its report is there. True where nobody writes to the FIFO now."""
        if not command.drain_status():
            return False
        if not command.record:
            return True
        bash = self._bash
        assert bash is not None
        told = read_report(command.record, bash.session) or read_report(command.record, command.word)
        command.record = b""
        if told is None:
            return True
        bash.hide_script()
        self.known.learn(told, few=command.asked_again or b"ulimit" in command.text)
        self.known.cwd = self.known.place(bash)
        if told.kind == "end":
            self._finish(command, told.code, None)
        return True

    def died(self, status: int) -> None:
        """The shell has ended, by itself or killed; a running command has ended with it."""
        command = self.command
        if command is not None and command.quick:
            self._quick_told()
        elif command is not None and not command.checking and command.status_fd >= 0:
            self._read_status(command)  # `exit` tells the directory and the variables before the shell ends
        if self.command is not None:
            code = os.waitstatus_to_exitcode(status)
            self.known.last_code = code if code >= 0 else 128 - code
            self.known.last_codes = [self.known.last_code]
            replaced = self.command.replaced
            self._finish(self.command, None if replaced else self.known.last_code, "shell" if replaced else None)
        self._leave()
        if command is not None:
            self.start()

    def killed(self, reason: str, *, restart: bool = True) -> None:
        """Everything was killed, the shell with it; the command ends for this reason and a new shell starts."""
        if self.command is not None:
            self.known.last_code, self.known.last_codes = 137, [137]
            self._finish(self.command, None, reason)
        self._leave()
        self._forsaken.close()
        if restart:
            self.start()

    def _leave(self) -> None:
        bash, self._bash = self._bash, None
        if bash is not None:
            bash.leave(self._forsaken)

    def _finish(self, command: Command, code: int | None, killed: str | None) -> None:
        self.command = None
        if not command.output and self._bash is not None:
            drain(self._bash.out, command.kept.add)
        command.close(self.watcher, self._forsaken)
        seconds = time.monotonic() - command.started
        command.reply(exit_code=code, killed=killed, parts=command.kept.parts(), seconds=seconds, cwd=self.known.cwd)
