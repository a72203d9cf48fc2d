"""Inside the sandbox: the lines with which bash tells the outcome of a command, and what they tell.

Part of the guest (see server.py): standard library only. What such a line may be made of: words.py.
"""

import re

from .words import ALIASED, EVALS, nothing, quoted_bytes

QUIET_LETTERS = frozenset("hBCf")
"""Options under which a quick report shows nothing."""

SHADOWS = frozenset((b"builtin", b"printf"))
MOST_QUICK = 1 << 20


def report(folder: str, word: str, session: str, *, bare: bool = False) -> str:
    """A line that tells the outcome and leaves ``$?`` as it is.

    It is told over a FIFO named ``PID.word`` after the shell that reads the line, so that no forked child can tell in
    its place. As the first redirection the FIFO is closed last, when the child is waited for and all is as it was.

    Args:
        folder: of the FIFO.
        word: random, of this run.
        session: random, of this shell: part of the names in the file ``tell``, which saves reading a long line.
        bare: without words that an alias may have changed and without descriptors to spare, over the FIFO ``.word``.
    """
    if bare:
        return f'( {_told(word)} ) >"{folder}/.{word}" 2>/dev/null && (r{word}=)\n'
    code, facts, form = f"r{session}", f"v{session}", f"x{session}"
    told = (
        f'{code}=$? u{session}="$_" {facts}="${{PIPESTATUS[@]-}};$-;$SHELLOPTS:$BASHOPTS" {form}=; '
        f"{EVALS[3]} '{form}=3' || {form}=; POSIXLY_CORRECT=${{POSIXLY_CORRECT-{session}}}; \\. '{folder}/tell'"
    )
    return f'{{ ( {told} ) && {nothing(word)}; }} 3>"{folder}/$BASHPID.{word}" 2>/dev/null >/dev/null\n'


def quick_report(folder: str, word: str) -> str:
    """A line that tells status and directory over the FIFO ``quick`` without a child, leaves ``$_`` as it is, and
    begins to count lines anew after the empty line that follows. It is a simple command: DEBUG traps, traces,
    functions and other options would show or change it."""
    values = '"$BASHPID" "$?" "${#PIPESTATUS[@]}" "${PIPESTATUS[@]}" "$PWD" "${OLDPWD-}" "$_"'
    return f"{{ \\builtin printf '%s\\0' {word} {values}; }} >{folder}/quick${{-:LINENO=-1:0}}\n"


def on_exit(folder: str, word: str, then: str) -> str:
    """Text of an EXIT trap that tells the directory and the variables, and then does what the user's own says."""
    place = f'2>/dev/null >/dev/null 3>"{folder}/$BASHPID.{word}"'
    return f"{{ ( {_told(word, ' >&3', kind='exit')} ) && {nothing(word)}; }} {place}\n{then}"


def tell(session: str) -> str:
    """The rest of a report, a file that the forked child reads."""
    code, facts, form, counts = (f"{letter}{session}" for letter in "rvxa")
    mark = f"\\trap -- {session} USR2; \\trap -p USR2 >&3\n"
    return (
        f"{counts}=$LINENO\n"
        f"{EVALS[2]} '{form}=2' || {form}=${form}\n{EVALS[1]} '{form}=1' || {form}=${form}\n"
        f"case $BASH_VERSION in 4.[4-9]*|[5-9]*) {counts}=${counts}${{LINENO@a}};; *) {counts}=;; esac\n"
        f"\\trap -p EXIT DEBUG ERR CHLD >&3\n{mark}"
        f'\\export "{facts}=end;${code};${form};${facts};${{!BASH_ALIASES[@]}};$BASH_VERSION;${counts}" u{session}\n'
        f"\\export -p >&3\n"
        f"{mark}\\builtin printf . >&3 && \\unset -f declare && \\declare -F >&3 && \\trap -p USR2 >&3\n"
        f'\\exit "${code}"\n'
    )


def _told(word: str, to: str = "", *, kind: str = "end") -> str:
    """What a forked child does. Its variables have random names: the user may have made any other read-only."""
    code, facts, form = f"r{word}", f"v{word}", f"x{word}"
    tried = "; ".join(f"{EVALS[number]} '{form}={number}' || {form}=${form}" for number in (3, 2, 1))
    known = "$-;$SHELLOPTS:$BASHOPTS;${!BASH_ALIASES[@]};$BASH_VERSION;1"
    return (
        f'{code}=$? {facts}="${{PIPESTATUS[@]-}};{known}"; {form}=; {tried}; '
        f"POSIXLY_CORRECT=${{POSIXLY_CORRECT-{word}}}; \\trap -p EXIT{to}; "
        f'\\export "{facts}={kind};${code};${form};${facts}"; \\export -p{to}; \\exit "${code}"'
    )


class Told:
    """What a report says: the status, how text can be run, the options that are on, whether lines can be counted, the
    EXIT trap, a script that sets the exported variables, and the functions, None where a quick report would show."""

    def __init__(
        self, facts: list[str], traps: dict[bytes, bytes], exports: bytes, functions: set[bytes] | None
    ) -> None:
        self.kind, code, form, codes, self.letters, options, aliases, self.version, lines = facts
        self.code, self.form = int(code), int(form or 0)
        self.codes = [int(one) for one in codes.split()] or [self.code]
        self.options = set(options.split(":"))
        self.aliased = bool(ALIASED & set(aliases.split()))
        self.counts = lines.startswith("1") and "r" not in lines
        self.last_word: bytes | None = None
        """``$_``, as a word of bash."""
        self.trap, self.exports = traps.get(b"EXIT", b"").decode("utf-8", "surrogateescape"), exports
        self.sees_commands = bool(traps.get(b"DEBUG"))
        """Whether a trap fires for each command of the shell."""
        self.is_watched = bool(traps.get(b"CHLD")) or (self.sees_commands and "T" in self.letters)
        """Whether a trap fires for each child, or for each command of a child."""
        quiet = (
            set(self.letters) <= QUIET_LETTERS and "extdebug" not in self.options and not SHADOWS & (functions or set())
        )
        self.functions = functions if quiet and self.counts and self.form == 1 and not self.trap else None

    def exported(self, names: set[bytes]) -> bool:
        """Whether any of the variables is."""
        return bool(names) and re.search(rb"^export (?:%s)(?:=|$)" % b"|".join(names), self.exports, re.M) is not None


_QUOTED = rb"""(?:"(?:[^"\\]|\\[\s\S])*"|\$'(?:[^'\\]|\\[\s\S])*')"""
_TRAP = re.compile(rb"trap -- (-|(?:'[^']*'|\\')*) (\w+)\n")


def read_report(record: bytes, word: str) -> Told | None:
    """None where the record is not whole."""
    name = word.encode()
    found = re.search(rb'^export v%s="([^"]*)"\n' % name, record, re.M)
    facts = found[1].decode(errors="replace").split(";") if found else []
    if len(facts) != 9 or not facts[1].isdigit():
        return None
    traps, at = {}, 0
    while one := _TRAP.match(record, at):
        at = one.end()
        if one[1] == b"'%s'" % name:
            break
        traps[one[2]] = b"" if one[1] == b"-" else re.sub(rb"'([^']*)'|\\(')", rb"\1\2", one[1])
    exports, _, after = record[at:].partition(b"trap -- '%s' " % name)
    ours = rb'^export (?:[arvx]%s="[^"]*"|POSIXLY_CORRECT="%s")\n' % (name, name)
    last = re.search(rb"^export u%s=(%s)\n" % (name, _QUOTED), exports, re.M)
    exports = re.sub(rb"^export u%s=%s\n" % (name, _QUOTED), b"", exports, flags=re.M)
    functions = None
    if b"trap -- '%s' " % name in after and not traps.get(b"DEBUG") and not traps.get(b"ERR"):
        functions = {line.split()[-1] for line in after.splitlines() if b"declare -f" in line}
    told = Told(facts, traps, re.sub(ours, b"", exports, flags=re.M), functions)
    told.last_word = last[1] if last else None
    return told


class Quick:
    """What a quick report says."""

    def __init__(self, fields: list[bytes]) -> None:
        self.code, number = int(fields[0]), int(fields[1])
        self.codes = [int(one) for one in fields[2 : 2 + number]] or [self.code]
        self.places = fields[2 + number], fields[3 + number]
        """PWD and OLDPWD."""
        self.last_word = quoted_bytes(fields[4 + number])


def read_quick(record: bytes, word: str, pid: int) -> Quick | None:
    """None where it is not there, or not whole."""
    at = record.rfind(b"%s\0%d\0" % (word.encode(), pid))
    if at < 0:
        return None
    fields = record[at:].split(b"\0")[2:]
    try:
        return Quick(fields) if len(fields) >= 2 and len(fields) > int(fields[1]) + 5 else None
    except ValueError:
        return None
