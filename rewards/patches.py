"""Patches as text: reversed, made, taken apart by file. Pure functions; nothing is applied."""

import difflib
import re
from collections.abc import Mapping

_HUNK = re.compile(r"^@@ -(\d+(?:,\d+)?) \+(\d+(?:,\d+)?) @@(.*)$")


def reverse_patch(patch: str) -> str:
    """The git patch that undoes a patch of text files. Deletions become creations and the other way round.

    Raises:
        ValueError: it holds a binary change, which has no reverse in text.
    """
    if re.search(r"^GIT binary patch$", patch, re.M):
        raise ValueError("a binary change cannot be reversed as text")
    return "".join(_reverse_section(section) for section in re.split(r"^(?=diff --git )", patch, flags=re.M))


def _reverse_section(section: str) -> str:
    lines = section.splitlines(keepends=True)
    first = next((n for n, line in enumerate(lines) if _HUNK.match(line)), len(lines))
    header = _in_order([_reversed_header(line) for line in lines[:first]])
    body: list[str] = []
    removed: list[str] = []
    added: list[str] = []
    last = body  # where the line before went, which a "\\ No newline" mark follows
    for line in lines[first:]:
        if line[:1] in ("+", "-"):
            last = removed if line[0] == "+" else added
            last.append(("-" if line[0] == "+" else "+") + line[1:])
        elif line[:1] == "\\":
            last.append(line)
        else:
            body += [*removed, *added]
            removed.clear()
            added.clear()
            match = _HUNK.match(line)
            body.append(f"@@ -{match[2]} +{match[1]} @@{match[3]}\n" if match else line)
            last = body
    return "".join([*header, *body, *removed, *added])


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
    """Path -> the hunks of a git patch there (what stands after "@@", and the lines), old name for a rename.

    A rename is a change too: its hunks begin with a line that names both paths. Binary changes are left out.
    """
    changes: dict[str, list[str]] = {}
    for section in re.split(r"^(?=diff --git )", patch, flags=re.M):
        found = _paths_of_section(section)
        if found is None or re.search(r"^(GIT binary patch|Binary files .* differ)$", section, re.M):
            continue
        path, lines = found
        start = re.search(r"^@@ ", section, re.M)
        hunks = [line.rstrip() for line in section[start.start() :].splitlines()] if start else []
        changes.setdefault(path, []).extend([*lines, *hunks])
    return {path: "\n".join(lines).strip() for path, lines in changes.items() if any(lines)}


def _paths_of_section(section: str) -> tuple[str, list[str]] | None:
    """(path, lines that begin its change) of one file's part; None for text that belongs to no file."""
    renamed = re.search(r"^rename from (.+)\nrename to (.+)$", section, re.M)
    if renamed:
        return renamed[1], [f"rename from {renamed[1]} to {renamed[2]}"]
    old = re.search(r"^--- (?:a/)?([^\t\n]+)", section, re.M)
    new = re.search(r"^\+\+\+ (?:b/)?([^\t\n]+)", section, re.M)
    if old and new:
        return (new[1] if new[1] != "/dev/null" else old[1]), []
    header = re.match(r"diff --git a/(.+) b/(.+)$", section, re.M)
    return (header[2], []) if header else None


def _reversed_header(line: str) -> str:
    for before, after in (("--- a/", "+++ b/"), ("+++ b/", "--- a/")):
        if line.startswith(before):
            return after + line[len(before) :]
    swaps = {
        "--- /dev/null": "+++ /dev/null",
        "+++ /dev/null": "--- /dev/null",
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
    if match := re.match(r"^diff --git a/(.+) b/(.+)$", line):
        return f"diff --git a/{match[2]} b/{match[1]}\n"
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
    return text.splitlines(keepends=True)
