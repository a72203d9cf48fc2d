"""Inside the sandbox: the words that the session's bash is told besides the user's own.

Part of the guest (see server.py): standard library only.

Where it can be helped none of these lines runs a simple command in the session's shell itself: an empty ``for``, a
group, a subshell and expansions in redirections fire no DEBUG or ERR trap, print no trace and leave ``$_`` alone, and
no function and no ``enable -n`` takes their place. What must be a command runs in a forked child, where POSIX mode
makes the special builtins ``export``, ``trap`` and ``exit`` come before functions.
"""

import re

CHANGES_READING = re.compile(
    rb"\b(?:expand_aliases|posix|POSIXLY_CORRECT|restricted|verbose)\b|\bset\b[^\n;]{0,60}?[ \t]-[a-zA-Z]*[rv]"
)
"""Text that may change how bash reads its own input."""

READING = frozenset(("expand_aliases", "posix", "noexec", "verbose"))
"""Options under which bash does not read its own input as it reads any other text."""

WATCHES = re.compile(rb"\b(?:CHLD|SIGCHLD|17|DEBUG|functrace|extdebug)\b|\bset\b[^\n;]{0,60}?[ \t]-[a-zA-Z]*T")
"""Text after which a trap may see every child, or every command of one."""

CHANGES_WORDS = re.compile(rb"\benable\b[^\n;]{0,60}?\b(?:builtin|command|eval|trap|printf)\b")
"""Text after which text may have to be run in another way; only a report tells."""

HIDES_BUILTIN = re.compile(rb"\bbuiltin[ \t]*\(|\bfunction[ \t]+builtin\b")

SPARING = re.compile(rb"\bulimit\b")
"""Text after which the lines may need to be without further descriptors."""

ALIASED = frozenset(("{", "}", ":", "case", "do", "done", "esac", "for", "in"))
"""Words of the report that an alias could change."""

EVALS = {1: "\\builtin eval", 2: "\\command eval", 3: "\\eval"}
"""How text is run, by the number that a report gives. The first is never under ``set -e`` or an ERR trap itself, while
the text in it is."""

EXITS = re.compile(rb"\b(?:exit|logout|errexit|nounset)\b|\bset[ \t]+-\w*[eu]|\$\{\w+:?\?")
"""Text that may end the shell in an orderly way."""


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


def os_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
