"""Patches as text: reversed, made, taken apart by file. Pure functions; nothing is applied."""

import difflib
import re
from collections.abc import Mapping

_HUNK = re.compile(r"^@@ -(\d+(?:,\d+)?) \+(\d+(?:,\d+)?) @@(.*)$")
_HUNK_BEGINS = re.compile(r"^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_BINARY = re.compile(r"^(?:literal|delta) \d+$")
_ESCAPE = re.compile(r'\\([abfnrtv"\\]|[0-7]{3})')
_NAMED = dict(zip("abfnrtv", b"\a\b\f\n\r\t\v", strict=True))
_CHANGE = re.compile(r"^(?:diff --git \S|--- \S.*\n\+\+\+ \S|\*\*\* \S.*\n--- \S)", re.M)


def is_patch(text: str) -> bool:
    """Whether git or patch would find a change in a text: it may begin with a mail's header or other words."""
    return text.startswith("diff") or _CHANGE.search(text) is not None


def sections_of(patch: str) -> list[str]:
    """A patch in parts, each with the change of one file: what "diff --git" begins, or "---" and "+++" alone.

    A line of a hunk is never taken for such a header. What stands before the first is a part too, if it is not blank.
    """
    lines = _lines(patch)
    parts: list[list[str]] = [[]]
    old = new = 0
    has_names = git = False
    for n, line in enumerate(lines):
        if old > 0 or new > 0:
            old -= line[:1] in ("-", " ", "\n", "\r")
            new -= line[:1] in ("+", " ", "\n", "\r")
        elif match := _HUNK_BEGINS.match(line):
            old, new = (1 if count is None else int(count) for count in match.groups())
        elif line.startswith("diff --git "):
            parts.append([])
            git, has_names = True, False
        elif line.startswith("--- ") and n + 1 < len(lines) and lines[n + 1].startswith("+++ "):
            if has_names or not git:
                parts.append([])
                git = False
            has_names = True
        parts[-1].append(line)
    return [part for part in map("".join, parts) if part.strip()]


def paths_of(patch: str) -> tuple[tuple[str, str], ...]:
    """(name before, name after) of each file that a patch changes, without "a/" and "b/"; "" for a file that is not
    there. Names with blanks, and those that git quotes, are as they are on disk (undecodable bytes as surrogates)."""
    return tuple(found for section in sections_of(patch) if (found := _names_of(section)) is not None)


def _names_of(section: str) -> tuple[str, str] | None:
    head = section.partition("\n@@ ")[0]
    old = re.search(r"^--- (.+)$", head, re.M)
    new = re.search(r"^\+\+\+ (.+)$", head, re.M)
    if old and new:
        return _plain(old[1]), _plain(new[1])
    moved = re.search(r"^(?:rename|copy) from (.+)\n(?:rename|copy) to (.+)$", head, re.M)
    if moved:
        return _unquoted(moved[1]), _unquoted(moved[2])
    names = _header_names(head.partition("\n")[0])
    if names is None:
        return None
    gone, made = (re.search(rf"^{word} file mode ", head, re.M) for word in ("deleted", "new"))
    return "" if made else names[0], "" if gone else names[1]


def _header_names(line: str) -> tuple[str, str] | None:
    """The two names of "diff --git a/x b/x", where they may hold blanks and be quoted."""
    rest = line.removeprefix("diff --git ").rstrip("\r\n")
    if rest == line.rstrip("\r\n"):
        return None
    if quoted := re.fullmatch(r'("(?:[^"\\]|\\.)*"|\S+) ("(?:[^"\\]|\\.)*"|\S+)', rest):
        return _plain(quoted[1]), _plain(quoted[2])
    half = len(rest) // 2  # both names are one but for the prefix
    if rest[half : half + 1] == " " and _plain(rest[:half]) == _plain(rest[half + 1 :]):
        return _plain(rest[:half]), _plain(rest[half + 1 :])
    both = re.fullmatch(r"a/(.+) b/(.+)", rest)
    return (both[1], both[2]) if both else None


def _plain(name: str) -> str:
    """A name of a header line: without time stamp, quotes and prefix; "" for /dev/null."""
    name = _unquoted(name.rstrip("\r\n").partition("\t")[0])
    return "" if name == "/dev/null" else re.sub(r"^[ab]/", "", name)


def _unquoted(name: str) -> str:
    name = name.rstrip("\r")
    if len(name) < 2 or not (name.startswith('"') and name.endswith('"')):
        return name

    def byte(match: re.Match[bytes]) -> bytes:
        said = match[1].decode()
        code = int(said, 8) & 255 if said[0].isdigit() else _NAMED.get(said, ord(said))
        return bytes([code])

    raw = name[1:-1].encode("utf-8", errors="surrogateescape")
    return re.sub(_ESCAPE.pattern.encode(), byte, raw).decode("utf-8", errors="surrogateescape")


def reverse_patch(patch: str) -> str:
    """The patch that undoes a patch. Deletions become creations and the other way round.

    Raises:
        ValueError: it holds a binary change without its reverse, or a copy.
    """
    return "".join(_reverse_section(section) for section in sections_of(patch))


def _reverse_section(section: str) -> str:
    lines = _lines(section)
    first = next((n for n, line in enumerate(lines) if _HUNK.match(line.rstrip("\r\n"))), len(lines))
    if any(line.startswith("copy from ") for line in lines[:first]):
        raise ValueError("a copy cannot be reversed as text")
    binary = next((n for n, line in enumerate(lines[:first]) if line.startswith("GIT binary patch")), None)
    if binary is not None:
        return "".join([*_reversed_head(lines[:binary]), lines[binary], *_reversed_binary(lines[binary + 1 :])])
    return "".join([*_reversed_head(lines[:first]), *_reversed_hunks(lines[first:])])


def _reversed_head(lines: list[str]) -> list[str]:
    return _in_order([_reversed_header(line) for line in lines])


def _reversed_hunks(lines: list[str]) -> list[str]:
    body: list[str] = []
    removed: list[str] = []
    added: list[str] = []
    last = body  # where the line before went, which a "\\ No newline" mark follows
    old = new = 0
    for line in lines:
        if line[:1] == "\\":
            last.append(line)
        elif (old > 0 or new > 0) and line[:1] in ("+", "-"):
            old, new = old - (line[0] == "-"), new - (line[0] == "+")
            last = removed if line[0] == "+" else added
            last.append(("-" if line[0] == "+" else "+") + line[1:])
        else:
            body += [*removed, *added]
            removed.clear()
            added.clear()
            last = body
            match = None if old > 0 or new > 0 else _HUNK.match(line.rstrip("\r\n"))
            if match:
                old, new = (int([*count.split(","), "1"][1]) for count in (match[1], match[2]))
                body.append(f"@@ -{match[2]} +{match[1]} @@{match[3]}\n")
            else:
                old, new = old - 1, new - 1
                body.append(line)
    return [*body, *removed, *added]


def _reversed_binary(lines: list[str]) -> list[str]:
    """git writes what a binary change does and, after it, what undoes it."""
    begins = [n for n, line in enumerate(lines) if _BINARY.match(line.rstrip())]
    if len(begins) != 2:
        raise ValueError("a binary change without its reverse cannot be reversed as text")
    return [*lines[begins[1] :], *lines[begins[0] : begins[1]]]


def patch_of_texts(texts: Mapping[str, tuple[str, str]]) -> str:
    """A git patch that takes files from their first text to their second; "" is a file that is not there."""
    parts = []
    for path, (before, after) in texts.items():
        if before == after:
            continue
        header = f"diff --git a/{path} b/{path}\n"
        header += "new file mode 100644\n" if not before else ("deleted file mode 100644\n" if not after else "")
        names = (f"a/{path}" if before else "/dev/null", f"b/{path}" if after else "/dev/null")
        lines = list(difflib.unified_diff(_lines(before), _lines(after), *names))
        marked = [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
        parts.append(header + "".join(marked))
    return "".join(parts)


def changes_by_file(patch: str) -> dict[str, str]:
    """Path -> the hunks of a patch there (what stands after "@@", and the lines), old name for a rename.

    A rename is a change too: its hunks begin with a line that names both paths. Binary changes are left out.
    """
    changes: dict[str, list[str]] = {}
    for section in sections_of(patch):
        names = _names_of(section)
        if names is None or re.search(r"^(GIT binary patch|Binary files .* differ)$", section, re.M):
            continue
        old, new = names
        renamed = re.search(r"^rename from ", section.partition("\n@@ ")[0], re.M) is not None
        lines = [f"rename from {old} to {new}"] if renamed else []
        start = re.search(r"^@@ ", section, re.M)
        hunks = [line.rstrip() for line in section[start.start() :].splitlines()] if start else []
        changes.setdefault(old if renamed else new or old, []).extend([*lines, *hunks])
    return {path: "\n".join(lines).strip() for path, lines in changes.items() if any(lines)}


def _reversed_header(line: str) -> str:
    for before, after in (('--- "a/', '+++ "b/'), ("--- a/", "+++ b/")):
        for one, other in ((before, after), (after, before)):
            if line.startswith(one):
                return other + line[len(one) :]
    swaps = {
        "--- ": "+++ ",
        "+++ ": "--- ",
        "new file mode": "deleted file mode",
        "deleted file mode": "new file mode",
        "rename from": "rename to",
        "rename to": "rename from",
        "old mode": "new mode",
        "new mode": "old mode",
    }
    for before, after in swaps.items():
        if line.startswith(before):
            return after + line[len(before) :]
    if match := re.match(r'^diff --git (?:a/(.+) b/(.+)|"a/(.+)" "b/(.+)")$', line):
        quote = "" if match[1] else '"'
        return f"diff --git {quote}a/{match[2] or match[4]}{quote} {quote}b/{match[1] or match[3]}{quote}\n"
    if match := re.match(r"^index (\w+)\.\.(\w+)(.*)$", line):
        return f"index {match[2]}..{match[1]}{match[3]}\n"
    return line


def _in_order(lines: list[str]) -> list[str]:
    """Header lines in git's order again: what was swapped stands the wrong way round."""
    first = ("+++ ", "rename to ", "new mode ")
    second = ("--- ", "rename from ", "old mode ")
    ordered = list(lines)
    for n in range(len(ordered) - 1):
        for one, two in zip(first, second):
            if ordered[n].startswith(one) and ordered[n + 1].startswith(two):
                ordered[n], ordered[n + 1] = ordered[n + 1], ordered[n]
                break
    return ordered


def _lines(text: str) -> list[str]:
    """Lines as git has them: they end in a line feed, and in nothing else."""
    lines = [f"{line}\n" for line in text.split("\n")]
    return [*lines[:-1], lines[-1][:-1]] if lines[-1] != "\n" else lines[:-1]
