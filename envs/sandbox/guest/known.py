"""Inside the sandbox: what is known of the session's bash, and what it is told around a command because of that.

Part of the guest (see server.py): standard library only.
"""

import re

from .bash import Bash
from .command import Command
from .grammar import Text
from .reports import Quick, Told, on_exit, quick_report, report
from .streams import write_file
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
    nothing,
    os_bytes,
    quoted,
    quoted_bytes,
)

_OLD = re.compile(rb"^export OLDPWD(?:=.*?)?\n(?=export |PWD=|\Z)", re.M | re.S)


class Known:
    """Of one bash after the other.

    ``told``: the last full report; None of a shell that has given none. ``counted``: the next text begins at line 1.
    ``unchanged``: the last text changed nothing of the shell. ``bare``, ``few``: its lines must do without words that
    an alias may have changed, and without descriptors to spare. ``armed``: our EXIT trap that is set; empty for none.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.cwd: str = config["workdir"]
        self.exports: bytes | None = None
        self.last_code, self.last_codes = 0, [0]
        self.places: tuple[bytes, bytes] | None = None
        """PWD and OLDPWD, where a quick report has told them since the exported variables were."""
        self.users_trap = ""
        self.forget()

    def forget(self) -> None:
        """A new shell begins."""
        self.told: Told | None = None
        self.armed = ""
        self.bare = self.few = self.counted = self.unchanged = False

    def learn(self, told: Told, *, few: bool) -> None:
        """From a full report."""
        self.told, self.exports, self.places = told, told.exports, None
        self.few = self.few or few
        self.bare = self.few or (told.aliased and bool(told.options & READING))
        if told.kind == "end":
            self.last_code, self.last_codes = told.code, told.codes

    def learn_quick(self, quick: Quick) -> None:
        self.places, self.last_code, self.last_codes = quick.places, quick.code, quick.codes
        if self.told is not None:
            self.told.last_word = quick.last_word

    def learn_still(self, text: bytes, code: int, *, sees_commands: bool) -> None:
        """From the shell's memory, of one whose traps would see a report."""
        self.last_code, self.last_codes = code, [code]
        if self.told is not None:
            self.told.is_watched, self.told.sees_commands, self.told.functions = True, sees_commands, None
            if HIDES_BUILTIN.search(text):
                self.told.form = 3

    def state(self) -> tuple[str, bytes | None]:
        """Directory and exported variables, as a new shell would have them."""
        if self.places is not None and self.exports is not None:
            now, before = map(quoted_bytes, self.places)
            self.exports = _OLD.sub(b"", self.exports) + b"PWD=%s\nexport OLDPWD=%s\n" % (now, before)
            self.places = None
        return self.cwd, self.exports

    def first_lines(self, folder: str) -> bytes:
        places = [quoted(place) for place in (self.cwd, self._config["workdir"], "/") if place]
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

    def is_watched(self, text: bytes, bash: Bash) -> bool:
        """Whether a trap may see what a report does, and there is another way to know the outcome."""
        told = self.told
        if told is None or not told.form or self.bare or CHANGES_WORDS.search(text):
            return False
        return bool(told.is_watched or WATCHES.search(text)) and bash.memory is not None

    def is_quiet(self, known: Text) -> bool:
        """Whether after this text the shell is known to be as it is now but for its directory and the variables of its
        own, and a quick report shows in nothing."""
        told = self.told
        if told is None or told.functions is None or self.bare or self.armed or known.changes:
            return False
        return not known.words & told.functions and not told.exported(known.assigned)

    def lines(self, command: Command, bash: Bash) -> bytes:
        """What bash is told: set right what is not, run the text with its own output and no input, tell the outcome."""
        told, word, text, folder = self.told, command.word, command.text, bash.folder
        if told is not None and told.is_watched and command.still and not self.armed:
            bash.count_lines_anew()
            before = ""  # nothing has come between
        else:
            before = self._arm(command, bash) + self._again(command)
        aliased = (told is not None and told.aliased) or b"alias " in text
        after, bare = "", self.bare or bool(SPARING.search(text) or (aliased and CHANGES_READING.search(text)))
        if not command.direct:
            form = (told.form if told is not None else 1) or 1
            text = EVALS[form].encode() + b" " + quoted_bytes(text)
            after = f" </dev/null >'{command.output}' 2>&1" if command.output else ""
            if form == 1:
                after += f" && {f'(r{word}=)' if bare else nothing(word)}"
            after += "\n"  # where text ended in a backslash, the line after it is misread
        if command.still:
            self.counted = self.unchanged = False
            return os_bytes(before) + text + os_bytes(f"{after}\n\n")
        tells = quick_report(folder, word) if command.quick else report(folder, word, bash.session, bare=bare)
        self.counted = self.unchanged = command.quick
        # The empty line is read when the report is done: what has been read up to its end has been done.
        return os_bytes(before) + text + os_bytes(f"{after}\n{tells}\n")

    def _arm(self, command: Command, bash: Bash) -> str:
        """Sets an EXIT trap of ours before text that may end the shell, and takes the last one away.

        Not where it asks for traps, which would show ours.
        """
        user_trap, before = self.told.trap if self.told is not None else "", ""
        if self.armed:
            user_trap = self.users_trap if user_trap == self.armed else user_trap
            disarm = f"\\builtin trap -- {quoted(user_trap) if user_trap else '-'} EXIT{self.last_word()}"
            before = f"{disarm}\n" if self.bare else f"{{ {disarm}; }} >/dev/null 2>&1\n"
            self.armed = ""
        may = EXITS.search(command.text) or (self.told is not None and set(self.told.letters) & set("eu"))
        unseen = not command.quick and not command.still and not (self.told is not None and self.told.sees_commands)
        if may and unseen and b"trap" not in command.text and not self.bare:
            self.users_trap, self.armed = user_trap, on_exit(bash.folder, command.word, user_trap)
            armed = f"\\builtin trap -- {quoted(self.armed)} EXIT{self.last_word()}"
            before = f"{{ {armed}; }} >/dev/null 2>&1\n"
        self.counted = self.counted and not before
        return before

    def last_word(self) -> str:
        """What gives ``$_`` back, behind a command of ours in the shell itself."""
        word = self.told.last_word if self.told is not None else None
        if word is None:
            return ""
        return f"; {{ \\builtin : {word.decode('utf-8', 'surrogateescape')}; }} 2>/dev/null"  # a trace goes nowhere

    def _again(self, command: Command) -> str:
        """Sets status and line number right, where they are not or nothing can look at them."""
        told, known_as = self.told, self.last_code == 0 and self.last_codes == [0]
        if self.counted and (known_as or (command.quick and not command.asks)):
            return ""
        return again(
            self.last_code,
            self.last_codes,
            command.word,
            pipefail=told is not None and "pipefail" in told.options,
            count=told is None or told.counts,
            bare=self.bare,
        )

    def place(self, bash: Bash) -> str:
        """The shell's directory, as the kernel has it or, of a shell that has just ended, as PWD says."""
        try:
            return bash.place()
        except OSError:
            said = re.search(rb'^export PWD="([^"\\$`]*)"$', self.exports or b"", re.M)
            return said[1].decode("utf-8", "surrogateescape") if said else ""
