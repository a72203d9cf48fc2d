"""Inside the sandbox: which texts bash surely reads as whole and valid, and which change nothing of the shell.

Part of the guest (see server.py): standard library only.

A part of bash's grammar: lists, pipelines, ``for``, ``while``, ``if``, groups, subshells, command substitutions, here
documents. What is read here bash reads too, whatever its options; of anything else it is to be asked.
"""

import re

MOST_READ, DEEPEST = 65536, 20

BUILTINS = frozenset(
    b". : [ alias bg bind break builtin caller cd command compgen complete compopt continue declare dirs disown echo "
    b"enable eval exec exit export false fc fg getopts hash help history jobs kill let local logout mapfile popd "
    b"printf pushd pwd read readarray readonly return set shift shopt source suspend test times trap true type "
    b"typeset ulimit umask unalias unset wait".split()
)
HARMLESS = frozenset(b": [ cd echo false printf pwd test true type".split())
"""Builtins that change nothing of the shell but its directory, ``printf`` without ``-v``."""

RESERVED = frozenset(
    b"! case coproc do done elif else esac fi for function if in select then time until while [[ ]] { }".split()
)
CLOSERS = frozenset(b"do done elif else fi then }".split())
NOT_READ = frozenset(b". eval source".split())
"""They read text themselves, in which an end or a fault can lie."""

_NAME = rb"[A-Za-z_]\w*+"
_PATTERN = rb"[\w ./*:,@-]*+"
_VALUE = rb"\$(?:%s|[?_$!#@*0-9-]|\{#?%s(?:\[[@*\w]++\])?(?:(?::?[-+]|%%%%?|##?)%s|//?%s/%s)?\})" % (
    *(_NAME, _NAME),
    *(_PATTERN, _PATTERN, _PATTERN),
)
_SUM = re.compile(rb"\$\(\([\w $+*/%<>!-]++\)\)")
_FOR = re.compile(rb"([A-Za-z_]\w*+)[ \t]+in(?=[ \t])")
_DO = re.compile(rb";?[ \t]*\n?[ \t]*do(?=[ \t\n])")
_WORD_ALONE = re.compile(rb"[a-z!{}\[\]]++(?=[ \t\n;|&)])")
_OF_BASH = re.compile(rb"BASH|POSIX|SHELLOPTS|LINENO")
_QUOTED = rb"'[^']*+'|\\[^\n]"
_BLANK = re.compile(rb"(?:[ \t]|\\\n)*+")
_OPERATOR = re.compile(rb"&&|\|\||\|&?|;(?!;)|\n")
_REDIRECTION = re.compile(rb"[0-9]?>&[0-9](?![\w/.-])|[0-9&]?>>?(?![&>|(])|[0-9]?<(?![<&>(])|<<<")
_HERE = re.compile(rb"<<(-?)[ \t]*+(?:'([\w.!-]+)'|\"([\w.!-]+)\"|(\w+))(?=[ \t\n;|&>)])")
_ASSIGNED = re.compile(rb"([A-Za-z_]\w*+)\+?=")
_PLAIN = re.compile(rb"(?:[A-Za-z0-9_./,:@%%+=^*?~-]|%s|%s)++" % (_QUOTED, _VALUE))
_MORE = re.compile(rb"[\[\]{}!#]++")
"""Of an argument, not of the first word; ``#`` not at its beginning."""
_IN_QUOTES = re.compile(rb"(?:[^\"\\$`]|\\[\s\S]|%s|\$(?=[ \"./:,|)]))++" % _VALUE)
_COMMENT = re.compile(rb"#[^\n]*+")
_FORBIDDEN_HERE = re.compile(rb"[`\\]|\$[^ \w]")
_ASKS = re.compile(rb"\$(?:\?|\{\?)|PIPESTATUS")


class Unread(Exception):
    """Not of this grammar."""


class Text:
    """A text that bash reads as whole and valid.

    ``words``: the commands it calls by a literal name. ``assigned``: variables of the shell that it sets. ``changes``:
    whether it may change more of the shell than those and its directory. ``asks``: whether it may look at the last
    status.
    """

    def __init__(self, text: bytes) -> None:
        """Raises Unread."""
        if len(text) > MOST_READ or text.endswith(b"\\"):
            raise Unread
        self.words: set[bytes] = set()
        self.assigned: set[bytes] = set()
        self.changes = False
        self.asks = _ASKS.search(text) is not None
        self._text, self._at, self._depth = text + b"\n", 0, 0
        self._substituted = 0
        self._here: list[tuple[bytes, bool, bool]] = []
        if self._list(frozenset()) or self._at < len(self._text) or self._here:
            raise Unread

    def _skip(self) -> int:
        """Blanks. Returns the next byte, 0 at the end."""
        at = self._at = _BLANK.match(self._text, self._at).end()  # type: ignore[union-attr]
        return self._text[at] if at < len(self._text) else 0

    def _take(self, pattern: "re.Pattern[bytes]") -> "re.Match[bytes] | None":
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _list(self, ends: frozenset[bytes]) -> bytes:
        """Commands up to one of the words, or to ``)``, or to the end of the text. Returns the word."""
        self._depth += 1
        if self._depth > DEEPEST:
            raise Unread
        number, joined = 0, False
        while True:
            self._lines()
            byte = self._skip()
            word = self._reserved()
            if byte == 0 or byte == 0x29 or word in CLOSERS:
                end = b")" if byte == 0x29 else word
                if joined or not number or end not in (ends or (b"",)):
                    raise Unread
                self._at += len(end)
                self._depth -= 1
                return end
            self._command(word)
            number += 1
            joined = self._operator()

    def _lines(self) -> None:
        """Ends of lines and comments, and the here documents that begin after the first."""
        while True:
            byte = self._skip()
            if byte == 0x23 and not self._substituted:
                self._take(_COMMENT)
            elif byte == 0x0A:
                self._at += 1
                self._bodies()
            else:
                return

    def _operator(self) -> bool:
        """What follows a command. Whether another must come."""
        if self._skip() in (0, 0x29):
            return False
        found = self._take(_OPERATOR)
        if found is None:
            raise Unread
        if found[0] == b"\n":
            self._bodies()
        return found[0] in (b"&&", b"||", b"|", b"|&")

    def _bodies(self) -> None:
        if self._here and self._depth > 1:
            raise Unread
        for end, tabs, expands in self._here:
            while True:
                line_end = self._text.find(b"\n", self._at)
                if line_end < 0:
                    raise Unread
                line = self._text[self._at : line_end]
                self._at = line_end + 1
                if (line.lstrip(b"\t") if tabs else line) == end:
                    break
                if expands and _FORBIDDEN_HERE.search(line):
                    raise Unread
        self._here.clear()

    def _reserved(self) -> bytes:
        """The reserved word that is next, not taken."""
        found = _WORD_ALONE.match(self._text, self._at)
        return found[0] if found is not None and found[0] in RESERVED else b""

    def _command(self, word: bytes) -> None:
        if word == b"!":
            self._at += 1
            self._skip()
            word = self._reserved()
            if word == b"!":
                raise Unread
        if self._text[self._at] == 0x28:  # (
            if self._text[self._at + 1] == 0x28:
                raise Unread
            self._at += 1
            self._child()
        elif not word:
            self._simple()
            return
        else:
            self._at += len(word)
            self._compound(word)
        while self._redirection():
            pass

    def _compound(self, word: bytes) -> None:
        if word == b"{":
            self._list(frozenset((b"}",)))
        elif word in (b"while", b"until"):
            self._list(frozenset((b"do",)))
            self._list(frozenset((b"done",)))
        elif word == b"if":
            self._list(frozenset((b"then",)))
            while (end := self._list(frozenset((b"elif", b"else", b"fi")))) == b"elif":
                self._list(frozenset((b"then",)))
            if end == b"else":
                self._list(frozenset((b"fi",)))
        elif word == b"for":
            self._for()
        else:
            raise Unread

    def _for(self) -> None:
        self._skip()
        name = self._take(_FOR)
        if name is None:
            raise Unread
        self.assigned.add(name[1])
        while self._word(first=False):
            pass
        self._skip()
        if self._take(_DO) is None:
            raise Unread
        self._list(frozenset((b"done",)))

    def _simple(self) -> None:
        began, assigned, name = self._at, set(), b""
        while True:
            self._skip()
            if self._redirection():
                continue
            at = self._at
            found = self._take(_ASSIGNED)
            if found is not None:
                if not self._word(first=False, blank=True) and self._at != found.end():
                    raise Unread
                assigned.add(found[1])
                continue
            if (self._at > began and self._reserved()) or not self._word(first=True):
                break
            name = self._text[at : self._at]
            while self._word(first=False) or self._redirection():
                pass
            break
        if self._at == began:
            raise Unread
        if not name:
            self.assigned |= assigned
        elif not re.fullmatch(rb"[\w./+-]+|\[", name) or any(map(_OF_BASH.match, assigned)):
            self.changes = True
        elif name in NOT_READ:
            raise Unread
        self.words.add(name)
        if name in BUILTINS and (name not in HARMLESS or assigned or b" -v" in self._text[began : self._at]):
            self.changes = True

    def _redirection(self) -> bool:
        self._skip()
        here = self._take(_HERE)
        if here is not None:
            if self._depth > 1:
                raise Unread
            self._here.append((here[2] or here[3] or here[4], bool(here[1]), here[4] is not None))
            return True
        found = self._take(_REDIRECTION)
        if found is None:
            return False
        if found[0][-2:-1] != b"&":
            self._skip()
            if not self._word(first=False):
                raise Unread
        return True

    def _word(self, *, first: bool, blank: bool = False) -> bool:
        """A word that ends where words end. False where there is none; ``blank``: it may not begin after blanks."""
        if not blank:
            self._skip()
        began = self._at
        if _REDIRECTION.match(self._text, began) or (not blank and self._text[began : began + 1] == b"#"):
            return False
        while True:
            if self._take(_PLAIN) or (not first and self._take(_MORE)) or self._sum():
                continue
            byte = self._text[self._at : self._at + 1]
            if byte == b'"':
                self._at += 1
                self._quotes()
            elif byte == b"$" and self._text[self._at + 1 : self._at + 2] == b"(":
                self._substitution()
            elif first and byte in (b"[", b"]") and self._at == began:
                self._at += 1
            else:
                break
        if (
            self._at > began
            and self._text[self._at] not in b" \t\n;|&)"
            and self._text[self._at : self._at + 2] != b"\\\n"
        ):
            raise Unread
        if self._text[self._at : self._at + 1] == b"&" and self._text[self._at : self._at + 2] not in (b"&&", b"&>"):
            raise Unread
        return self._at > began

    def _quotes(self) -> None:
        """The rest of a double-quoted part."""
        while True:
            if self._take(_IN_QUOTES) or self._sum():
                continue
            if self._text[self._at : self._at + 1] == b'"':
                self._at += 1
                return
            if self._text[self._at : self._at + 2] != b"$(":
                raise Unread
            self._substitution()

    def _substitution(self) -> None:
        if self._text[self._at + 2 : self._at + 3] == b"(":
            raise Unread
        self._at += 2
        self._substituted += 1
        self._child()
        self._substituted -= 1

    def _child(self) -> None:
        """A list up to ``)``, whose changes are not the shell's."""
        changes, assigned = self.changes, set(self.assigned)
        self._list(frozenset((b")",)))
        self.changes, self.assigned = changes, assigned

    def _sum(self) -> bool:
        found = self._take(_SUM)
        if found is not None and (b"++" in found[0] or b"--" in found[0]):
            self.changes = True
        return found is not None


def read(text: bytes) -> Text | None:
    """None where bash itself has to say whether text is whole and valid."""
    try:
        return Text(text.rstrip(b" \t\n"))
    except Unread:
        return None
