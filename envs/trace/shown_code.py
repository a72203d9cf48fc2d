"""Pieces of a text that may be programs, however it shows them: in fences, behind numbers of lines, as a patch."""

import re
import textwrap
from collections.abc import Iterator

_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1[^\n]*\n(.*?)\n[ \t]*\2\b", re.DOTALL)
_OPENS = re.compile(r"(?m)^([ \t]*)(?:@|(?:async[ \t]+)?def[ \t]|class[ \t])")
_PREFIXES = tuple(
    re.compile(prefix)
    for prefix in (
        r"[ \t]*(?:[^\s:]+[:-])?\d+[\t:|│-]",  # cat -n, grep -n, editors
        r"[ \t]*\d+[ \t]",
        r"(?:>>>|\.\.\.)(?: |$)",
        r">(?: |$)",
    )
)
_NEW, _OLD = re.compile(r"[+ ](?!\+\+ )"), re.compile(r"[- ](?!-- )")


def programs_in(text: str) -> Iterator[str]:
    """The whole, what stands in fences and here-documents, each run of definitions, and the same of each way in which
    lines are shown with something before them."""
    for view in views_of(text):
        yield view
        yield from (match[1] for match in _FENCE.finditer(view))
        yield from (match[3] + "\n" for match in _HEREDOC.finditer(view))
        yield from _definitions(view)


def views_of(text: str) -> Iterator[str]:
    """A text, and what it is without the numbers, prompts, quotes or signs of a patch before its lines."""
    yield text
    lines = text.split("\n")
    for prefix in _PREFIXES:
        found = [prefix.match(line) for line in lines]
        if sum(map(bool, found)) > 1:
            yield textwrap.dedent("\n".join(line[match.end() :] if match else "" for line, match in zip(lines, found)))
    if "@@" in text or "diff " in text:
        for sign in (_NEW, _OLD):
            yield "\n".join(line[1:] for line in lines if sign.match(line))


def _definitions(text: str) -> Iterator[str]:
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        opened = _OPENS.match(lines[at])
        end = at + 1
        if opened:
            while end < len(lines) and _goes_on(lines[end], len(opened[1])):
                end += 1
            yield textwrap.dedent("\n".join(lines[at:end])) + "\n"
        at = end


def _goes_on(line: str, indent: int) -> bool:
    """Whether a line belongs to the definition that an earlier line of this indentation begins."""
    return not line.strip() or len(line) - len(line.lstrip()) > indent or bool(_OPENS.match(line))
