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
import re
import time
from collections.abc import Callable
from signal import SIGKILL

from .bash import Bash
from .command import Command
from .grammar import Text, read
from .reports import Told, on_exit, quick_report, read_quick, read_report, report
from .streams import Forsaken, Watcher, drain, nowhere, write_file
from .system import Config
from .words import (
    CHANGES_READING,
    CHANGES_WORDS,
    EVALS,
    EXITS,
    HIDES_BUILTIN,
    READING,
    SPARING,
    WATCHES,
    again,
    check,
    empty,
    nothing,
    os_bytes,
    quoted,
    quoted_bytes,
)

MOST_CHECKED = 65536
_OLD = re.compile(rb"^export OLDPWD(?:=.*?)?\n(?=export |PWD=|\Z)", re.M | re.S)


class Shell:
    def __init__(self, config: Config, watcher: Watcher) -> None:
        self.config, self.watcher = config, watcher
        self.command: Command | None = None
        self.cwd: str = config["workdir"]
        self.exports: bytes | None = None
        self.last_code, self.last_codes = 0, [0]
        self._bash: Bash | None = None
        self._told: Told | None = None
        self._places: tuple[bytes, bytes] | None = None
        """PWD and OLDPWD, where a quick report has told them since the exported variables were."""
        self._counted = self._unchanged = False
        """Whether the next text begins at line 1, and whether the last one changed nothing of the shell."""
        self._bare = self._few = False
        self._armed = self._users_trap = ""
        self._generation = 0
        self._forsaken = Forsaken(watcher)

    @property
    def pid(self) -> int | None:
        return None if self._bash is None else self._bash.pid

    def start(self) -> None:
        """Start bash in the last directory, with the exported variables of the last finished command."""
        self._generation += 1
        folder = f"{self.config['scratch']}/{self._generation}"
        env = self.config["env"] if self.state()[1] is None else {}
        bash = self._bash = Bash(self.config, self.watcher, folder, env)
        self.watcher.watch(bash.out, self._read_out)
        self.watcher.watch(bash.quick, self._quick_told)
        self._told, self._armed = None, ""
        self._bare = self._few = self._counted = self._unchanged = False
        bash.send(self._first_lines(folder) + os_bytes(again(self.last_code, self.last_codes, "x")))

    def state(self) -> tuple[str, bytes | None]:
        """Directory and exported variables, as a new shell would have them."""
        if self._places is not None and self.exports is not None:
            now, before = map(quoted_bytes, self._places)
            self.exports = _OLD.sub(b"", self.exports) + b"PWD=%s\nexport OLDPWD=%s\n" % (now, before)
            self._places = None
        return self.cwd, self.exports

    def _first_lines(self, folder: str) -> bytes:
        places = [quoted(place) for place in (self.cwd, self.config["workdir"], "/") if place]
        cd = " || ".join(f"builtin cd -- {place}" for place in places)
        if self.exports is None:
            return os_bytes(f"{{ {cd}; }} 2>/dev/null; builtin unset OLDPWD; builtin export OLDPWD\n")
        old = _OLD.search(self.exports)
        before = old[0] if old else b"builtin unset OLDPWD\n"
        write_file(f"{folder}/exports", self.exports)
        write_file(f"{folder}/before", before)
        same = f"[ . -ef {places[0]} ]" if self.cwd else "true"
        return os_bytes(
            f"builtin . '{folder}/exports'; {{ builtin cd -- \"$PWD\" && {same} || {cd}; }} 2>/dev/null; "
            f"builtin . '{folder}/before'\n"
        )

    def run(self, number: int, text: bytes, timeout: float, keep: int, reply: Callable[..., None]) -> None:
        """Begin a command; ``reply`` is called once with exit_code, killed, parts and seconds."""
        command = Command(number, text, timeout, keep, reply)
        self.watcher.reap()
        if b"\0" in text:
            told = b"a command cannot hold a NUL byte; nothing was run\n"
            reply(exit_code=126, killed=None, parts=(told, b"", 0), seconds=0.0, cwd=self.cwd)
            return
        try:
            self._begin(command)
        except OSError as error:  # where commands have our own user, they can damage or fill the scratch folder
            told = f"cannot start a command: {error}\n".encode()
            seconds = time.monotonic() - command.started
            reply(exit_code=126, killed=None, parts=(told, b"", 0), seconds=seconds, cwd=self.cwd)

    def _begin(self, command: Command) -> None:
        if self._bash is None:
            self.start()
        bash, told, text = self._bash, self._told, command.text
        assert bash is not None
        drain(bash.out, nowhere)
        if self._bare:
            bash.settle()
        command.moved = told is not None and not self._few and not self._has_all(bash)
        asks = len(text) > MOST_CHECKED or text.endswith(b"\\") or CHANGES_READING.search(text) or empty(text)
        mine = told is not None and not asks and not told.options & READING and "r" not in told.letters
        known = read(text) if mine and not command.moved else None
        command.still = mine and self._is_watched(text, bash)
        command.quick = known is not None and not command.still and self._is_quiet(known)
        command.asks = known is None or known.asks
        if not command.quick and not (command.still and known is not None):
            command.open_status(self.watcher, bash.folder, bash.pid, lambda: self._status_told(command))
        self.command = command
        if command.moved:
            bash.send(bash.other_output(self._forsaken, self._read_out))
            self._counted = False
        if known is not None:
            self._go(command, direct=True)
        elif told is None or not mine or (told.form != 1 and not command.still):
            self._go(command, direct=False)
        else:
            command.checking = True
            self._counted = False
            if command.still:
                bash.check_beside(text, command.status)
                return
            bash.send(check(bash.folder, command.word, text, bare=self._bare))

    def _has_all(self, bash: Bash) -> bool:
        """Whether nothing but the shell writes to its output, and its descriptors are as they were. Where a trap would
        see the line that gives it another output, what a job prints stays among what is printed."""
        alone = bash.is_alone() or (self._told is not None and self._told.sees_commands)
        return alone and (self._unchanged or bash.holds_output())

    def _is_watched(self, text: bytes, bash: Bash) -> bool:
        """Whether a trap may see what a report does, and there is another way to know the outcome."""
        told = self._told
        if told is None or not told.form or self._bare or CHANGES_WORDS.search(text):
            return False
        return bool(told.is_watched or WATCHES.search(text)) and bash.memory is not None

    def _is_quiet(self, known: Text) -> bool:
        """Whether after this text the shell is known to be as it is now but for its directory and the variables of its
        own, and a quick report shows in nothing."""
        told = self._told
        if told is None or told.functions is None or self._bare or self._armed or known.changes:
            return False
        return not known.words & told.functions and not told.exported(known.assigned)

    def _go(self, command: Command, *, direct: bool) -> None:
        """Give the text to bash: as its own input, or to ``eval`` with an output of its own."""
        assert self._bash is not None
        command.direct, command.checking = direct, False
        if not direct and not self._few:
            command.open_output(self.watcher, self._bash.folder)
        if direct or self._told is None or self._told.form:
            self._bash.send(self._lines(command))
        else:
            command.asked_again = True  # there is no way left to run text: the silence ends this shell

    def _lines(self, command: Command) -> bytes:
        """What bash is told: set right what is not, run the text with its own output and no input, tell the outcome."""
        assert self._bash is not None
        told, word, text, folder = self._told, command.word, command.text, self._bash.folder
        if told is not None and told.is_watched and command.still and not self._armed:
            self._count_anew()
            before = ""  # nothing has come between
        else:
            before = self._arm(command) + self._again(command)
        after, bare = "", self._bare or bool(SPARING.search(text))
        if not command.direct:
            form = (told.form if told is not None else 1) or 1
            text = EVALS[form].encode() + b" " + quoted_bytes(text)
            after = f" </dev/null >'{command.output}' 2>&1" if command.output else ""
            if form == 1:
                after += f" && {f'(r{word}=)' if bare else nothing(word)}"
            after += "\n"  # where text ended in a backslash, the line after it is misread
        if command.still:
            self._counted = self._unchanged = False
            return os_bytes(before) + text + os_bytes(f"{after}\n\n")
        tells = quick_report(folder, word) if command.quick else report(folder, word, self._bash.session, bare=bare)
        self._counted = self._unchanged = command.quick
        # The empty line is read when the report is done: what has been read up to its end has been done.
        return os_bytes(before) + text + os_bytes(f"{after}\n{tells}\n")

    def _arm(self, command: Command) -> str:
        """Sets an EXIT trap of ours before text that may end the shell, and takes the last one away.

        Not where it asks for traps, which would show ours.
        """
        user_trap, before = self._told.trap if self._told is not None else "", ""
        if self._armed:
            user_trap = self._users_trap if user_trap == self._armed else user_trap
            disarm = f"\\builtin trap -- {quoted(user_trap) if user_trap else '-'} EXIT"
            before = f"{disarm}\n" if self._bare else f"{{ {disarm}; }} >/dev/null 2>&1\n"
            self._armed = ""
        may = EXITS.search(command.text) or (self._told is not None and set(self._told.letters) & set("eu"))
        unseen = not command.quick and not command.still and not (self._told is not None and self._told.sees_commands)
        if may and unseen and b"trap" not in command.text and not self._bare and self._bash is not None:
            self._users_trap, self._armed = user_trap, on_exit(self._bash.folder, command.word, user_trap)
            before = f"{{ \\builtin trap -- {quoted(self._armed)} EXIT; }} >/dev/null 2>&1\n"
        self._counted = self._counted and not before
        return before

    def _again(self, command: Command) -> str:
        """Sets status and line number right, where they are not or nothing can look at them."""
        told, known_as = self._told, self.last_code == 0 and self.last_codes == [0]
        if self._counted and (known_as or (command.quick and not command.asks)):
            return ""
        return again(
            self.last_code,
            self.last_codes,
            command.word,
            pipefail=told is not None and "pipefail" in told.options,
            count=told is None or told.counts,
            bare=self._bare,
        )

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
            command.quick = self._counted = self._unchanged = False
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
            if self._told is not None:
                self._told.is_watched, self._told.sees_commands, self._told.functions = True, sees, None
                if HIDES_BUILTIN.search(command.text):
                    self._told.form = 3
            self.last_code, self.last_codes = code, [code]
            self.cwd = self._place(bash)
            self._finish(command, code, None)
        else:
            command.still = False
            if command.status_fd < 0:
                command.open_status(self.watcher, bash.folder, bash.pid, lambda: self._status_told(command))
            bash.send(os_bytes(report(bash.folder, command.word, bash.session) + "\n"))

    def _count_anew(self) -> None:
        memory = self._bash.memory if self._bash is not None else None
        try:
            if memory is not None:
                memory.count_lines_anew()
        except OSError:
            pass  # its messages count on

    def replace(self) -> bool:
        """End the shell, which no longer runs what it is given. False where it never has."""
        if self.command is not None and self._bash is not None:
            self.command.replaced = True
            os.kill(self._bash.pid, SIGKILL)
        return self._told is not None

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
        self._places, self.last_code, self.last_codes = quick.places, quick.code, quick.codes
        self.cwd = self._place(bash)
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
        self._told, self.exports, self._places = told, told.exports, None
        self._few = self._few or command.asked_again or b"ulimit" in command.text
        self._bare = self._few or told.aliased
        self.cwd = self._place(bash)
        if told.kind == "end":
            self.last_code, self.last_codes = told.code, told.codes
            self._finish(command, told.code, None)
        return True

    def _place(self, bash: Bash) -> str:
        """The shell's directory, as the kernel has it or, of a shell that has just ended, as PWD says."""
        try:
            return bash.place()
        except OSError:
            said = re.search(rb'^export PWD="([^"\\$`]*)"$', self.exports or b"", re.M)
            return said[1].decode("utf-8", "surrogateescape") if said else ""

    def died(self, status: int) -> None:
        """The shell has ended, by itself or killed; a running command has ended with it."""
        command = self.command
        if command is not None and command.quick:
            self._quick_told()
        elif command is not None and not command.checking and command.status_fd >= 0:
            self._read_status(command)  # `exit` tells the directory and the variables before the shell ends
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
        if self.command is not None:
            self.last_code, self.last_codes = 137, [137]
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
        command.reply(exit_code=code, killed=killed, parts=command.kept.parts(), seconds=seconds, cwd=self.cwd)
