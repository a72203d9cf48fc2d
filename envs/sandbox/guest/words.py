"""Inside the sandbox: the words that the session's bash is told besides the user's own, and what it reports.

Part of the guest (see server.py): standard library only.

Where it can be helped none of these lines runs a simple command in the session's shell itself: an empty ``for``, a
group, a subshell and expansions in redirections fire no DEBUG or ERR trap, print no trace and leave ``$_`` alone, and
no function and no ``enable -n`` takes their place. What must be a command runs in a forked child, where POSIX mode
makes the special builtins ``export``, ``trap`` and ``exit`` come before functions.
"""

import re

CHANGES_READING = re.compile(
    rb"\b(?:expand_aliases|posix|POSIXLY_CORRECT|restricted|verbose)\b|\bset\b[^\n;]*[ \t]-[a-zA-Z]*[rv]"
)
"""Text that may change how bash reads its own input."""

READING = frozenset(("expand_aliases", "posix", "noexec", "verbose"))
"""Options under which bash does not read its own input as it reads any other text."""

SPARING = re.compile(rb"\b(?:alias|ulimit)\b")
"""Text after which the lines may need to be without aliased words or further descriptors."""

ALIASED = frozenset(("{", "}", ":", "case", "do", "done", "esac", "for", "in"))
"""Words of the report that an alias could change."""

EVALS = {1: "\\builtin eval", 2: "\\command eval", 3: "\\eval"}
"""How text is run, by the number that a report gives. The first is never under ``set -e`` or an ERR trap itself, while
the text in it is."""

EXITS = re.compile(rb"\b(?:exit|logout|errexit|nounset)\b|\bset[ \t]+-\w*[eu]|\$\{\w+:?\?")
"""Text that may end the shell in an orderly way."""

RESERVED = frozenset(
    b"! case coproc do done elif else esac fi for function if in select then time until while [[ ]]".split()
)
NOT_PLAIN = frozenset(b". eval source".split())
MOST_PLAIN = 65536

_VALUE = rb"\$(?:[A-Za-z_]\w*+|[?_$!#@*0-9-]|\{[A-Za-z_]\w*+(?:\[[@*\w]++\])?\})"
_PIECE = rb"(?:[A-Za-z0-9_./,:@%%+=^*?~-]|\\[^\n]|'[^']*+'|\"(?:[^\"\\$`]|\\[^\n]|%s)*+\"|%s)" % (_VALUE, _VALUE)
_REDIRECTION = rb"[0-9]?>&[0-9]|[0-9&]?>>?[ \t]*+%s++|[0-9]?<[ \t]*+%s++" % (_PIECE, _PIECE)
_TOKEN = re.compile(
    rb"[ \t]*+(?:(%s)(?=[ \t\n;|&]|$)|(%s++|\[|\])(?=[ \t\n;|&]|$)|(&&|\|\||\||;|\n))" % (_REDIRECTION, _PIECE)
)


def plain(text: bytes) -> bool:
    """Whether text is whole and valid for bash, whatever its options: lists of simple commands of plain words.

    Only such text can be given to bash as its own input. Of other text bash itself is to find the end and the faults.
    """
    at, words, joined = 0, 0, False
    text = text.rstrip(b" \t\n")
    if len(text) > MOST_PLAIN:
        return False
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return False
        at = token.end()
        _, word, operator = token.groups()
        if operator is None:
            words += 1
            if word in RESERVED or word in NOT_PLAIN:
                return False
        elif words:
            words, joined = 0, operator not in (b";", b"\n")
        elif operator != b"\n":
            return False
    return bool(words) or (bool(text) and not joined)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def quoted_bytes(text: bytes) -> bytes:
    return b"'" + text.replace(b"'", b"'\\''") + b"'"


def nothing(word: str) -> str:
    """Does nothing, successfully. The variable is never set; any other name may be one that the user made read-only."""
    return f"for n{word} in; do :; done"


def empty(text: bytes) -> bool:
    """Whether text is blank lines and comments."""
    return all(not line.strip() or line.lstrip().startswith(b"#") for line in text.split(b"\n"))


def again(
    code: int, codes: list[int], word: str, *, pipefail: bool = False, count: bool = True, bare: bool = False
) -> str:
    """A line that sets ``$?`` and PIPESTATUS to what they were, and, where ``count``, the line's number to 0.

    The status of a pipeline is its last command's, or with pipefail the last failure's; after ``if``, ``!`` and the
    like ``$?`` is another.
    """
    pipe = " | ".join(f"(POSIXLY_CORRECT=; \\exit {one})" for one in codes)
    if bare:
        return f"(POSIXLY_CORRECT=; \\exit {code}) && (r{word}=)\n"
    natural = next((one for one in reversed(codes) if one), 0) if pipefail else codes[-1]
    if codes == [0] and code == 0:
        body = nothing(word)
    elif code == natural:
        body = f"{pipe} && {nothing(word)}"
    elif code in (0, 1):
        so = f"{'! ' * code}{nothing(word)}"
        body = f"{pipe} && {so} || {so}"
    else:
        body = f"(POSIXLY_CORRECT=; \\exit {code}) && {nothing(word)}"
    return f"{{ {body}; }} >/dev/null 2>&1 </dev/null{'${-:LINENO=0:0}' if count else ''}\n"


def check(folder: str, word: str, text: bytes, *, bare: bool = False) -> bytes:
    """A line that tells nothing where text is whole and valid, else what bash has against it. It runs none of it."""
    first = quoted(f"\\builtin set -n || r{word}=${{x{word}?}}\n")
    child = f"\\builtin set +x; \\builtin eval {first}".encode() + quoted_bytes(text)
    if bare:
        return b'( %s ) >"%s" 2>&1\n\n' % (child, os_bytes(f"{folder}/.{word}"))
    place = f'3>"{folder}/$BASHPID.{word}" 2>/dev/null >/dev/null'
    return b"{ ( %s 2>&3 ) && %s; } %s\n\n" % (child, os_bytes(nothing(word)), os_bytes(place))


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
        f'{code}=$? {facts}="${{PIPESTATUS[@]-}};$-;$SHELLOPTS:$BASHOPTS" {form}=; '
        f"{EVALS[3]} '{form}=3' || {form}=; POSIXLY_CORRECT=${{POSIXLY_CORRECT-{session}}}; \\. '{folder}/tell'"
    )
    return f'{{ ( {told} ) && {nothing(word)}; }} 3>"{folder}/$BASHPID.{word}" 2>/dev/null >/dev/null\n'


def on_exit(folder: str, word: str, then: str) -> str:
    """Text of an EXIT trap that tells the directory and the variables, and then does what the user's own says."""
    place = f'2>/dev/null >/dev/null 3>"{folder}/$BASHPID.{word}"'
    return f"{{ ( {_told(word, ' >&3', kind='exit')} ) && {nothing(word)}; }} {place}\n{then}"


def tell(session: str) -> str:
    """The rest of a report, a file that the forked child reads."""
    code, facts, form, counts = (f"{letter}{session}" for letter in "rvxa")
    return (
        f"{EVALS[2]} '{form}=2' || {form}=${form}\n{EVALS[1]} '{form}=1' || {form}=${form}\n{counts}=\n"
        f"case $BASH_VERSION in 4.[4-9]*|[5-9]*) {counts}=${{LINENO@a}};; esac\n\\trap -p EXIT >&3\n"
        f'\\export "{facts}=end;${code};${form};${facts};${{!BASH_ALIASES[@]}};$BASH_VERSION;${counts}"\n'
        f'\\export -p >&3\n\\exit "${code}"\n'
    )


def _told(word: str, to: str = "", *, kind: str = "end") -> str:
    """What a forked child does. Its variables have random names: the user may have made any other read-only."""
    code, facts, form = f"r{word}", f"v{word}", f"x{word}"
    tried = "; ".join(f"{EVALS[number]} '{form}={number}' || {form}=${form}" for number in (3, 2, 1))
    known = "$-;$SHELLOPTS:$BASHOPTS;${!BASH_ALIASES[@]};$BASH_VERSION;"
    return (
        f'{code}=$? {facts}="${{PIPESTATUS[@]-}};{known}"; {form}=; {tried}; '
        f"POSIXLY_CORRECT=${{POSIXLY_CORRECT-{word}}}; \\trap -p EXIT{to}; "
        f'\\export "{facts}={kind};${code};${form};${facts}"; \\export -p{to}; \\exit "${code}"'
    )


class Told:
    """What a report says: the status, how text can be run, the options that are on, whether lines can be counted, the
    EXIT trap, a script that sets the exported variables."""

    def __init__(self, facts: list[str], trap: str, exports: bytes) -> None:
        self.kind, code, form, codes, self.letters, options, aliases, self.version, attributes = facts
        self.code, self.form = int(code), int(form or 0)
        self.codes = [int(one) for one in codes.split()] or [self.code]
        self.options = set(options.split(":"))
        self.aliased = bool(ALIASED & set(aliases.split()))
        self.counts = "r" not in attributes
        self.trap, self.exports = trap, exports


def read_report(record: bytes, word: str) -> Told | None:
    """None where the record is not whole."""
    name = word.encode()
    found = re.search(rb'^export v%s="([^"]*)"\n' % name, record, re.M)
    facts = found[1].decode(errors="replace").split(";") if found else []
    if len(facts) != 9 or not facts[1].isdigit():
        return None
    trap = re.search(rb"^trap -- (-|(?:'[^']*'|\\')*) EXIT\n", record, re.M)
    then = b"" if trap is None or trap[1] == b"-" else re.sub(rb"'([^']*)'|\\(')", rb"\1\2", trap[1])
    ours = rb'^export (?:[arvx]%s="[^"]*"|POSIXLY_CORRECT="%s")\n' % (name, name)
    exports = re.sub(ours, b"", record[trap.end() if trap else 0 :], flags=re.M)
    return Told(facts, then.decode("utf-8", "surrogateescape"), exports)


def os_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
