"""Viewing and editing text by lines: the logic of the ``view``, ``edit`` and ``create`` tools, free of any sandbox.

A line is what ends in a newline, as for ``grep -n``, tracebacks and editors. Time and answer are bounded whatever the
text is.
"""

import itertools
import re
from collections import Counter
from dataclasses import dataclass

from .spec import ToolError

MAX_FILE_BYTES = 4 << 20
"""Of a file that view and edit take."""

MAX_LINES, MAX_LINE_CHARS, MAX_VIEW_CHARS = 200, 2000, 30_000
"""Most that one view shows: lines, characters of a line, characters together."""

MAX_PLACES = 10
"""Most places of a match that are told."""

MAX_COMPARED, COMPARED_CHARS, MAX_NEAR = 4000, 200, 20
"""Searched for the nearest match after a failed edit: lines, characters of each; lines shown of what is found."""

BOM = "\ufeff"
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\xa0\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)
"""Characters that nobody sees or that look like a blank or a line's end; a tab is not among them."""

NOTED = re.compile(r"<U\+([0-9A-F]{4,6})>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """A text after an edit, and the number of the first line that was replaced."""

    text: str
    line: int


def decode(data: bytes, path: str) -> str:
    """The text of a file. Raises ToolError where it is not UTF-8, or too large."""
    if len(data) > MAX_FILE_BYTES:
        raise ToolError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB; use bash")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ToolError(f"{path} is not UTF-8 text") from None


def view_lines(text: str, path: str, start: int = 1, end: int = 0) -> str:
    """Lines ``start`` to ``end`` (1-based, both included; 0 is the last), numbered, within the bounds above.

    Characters that nobody sees are shown as <U+000C>, and so is a carriage return at the end of a line where not all
    lines have one. A byte-order mark at the beginning is not shown.

    Raises:
        ToolError: the window lies outside the file.
    """
    lines = _split(text.removeprefix(BOM))
    last = end if 0 < end <= len(lines) else len(lines)
    if not lines:
        return f"[{path} is empty]"
    if not 1 <= start <= last:
        raise ToolError(f"{path} has lines 1 to {len(lines)}; {start} to {end or 'the last'} is no window of them")
    hide = _all_crlf(lines)
    rows: list[str] = []
    room = MAX_VIEW_CHARS
    for number in range(start, min(last, start + MAX_LINES - 1) + 1):
        line = lines[number - 1]
        row = f"{number}: {_shown(_bare(line) if hide else line.removesuffix(chr(10)))}"
        room -= len(row) + 1
        if room < 0:
            break
        rows.append(row)
    shown = start + len(rows) - 1
    if shown < last:
        rows.append(f"[lines {shown + 1} to {last} not shown]")
    return "\n".join(rows)


def replace_lines(text: str, search: str, replace: str, path: str) -> str:
    """The text of ``edit_lines``."""
    return edit_lines(text, search, replace, path).text


def edit_lines(text: str, search: str, replace: str, path: str) -> Edited:
    """Text with the one place where ``search`` stands, as whole consecutive lines, replaced.

    An empty ``replace`` deletes the lines. What view shows as <U+000C> may be written so. A line keeps its end where it
    stays or is replaced by another; a line that is added ends as the one before it does. A missing end at the end
    of the file stays missing, a byte-order mark stays.

    Raises:
        ToolError: ``search`` is empty, changes nothing, or stands nowhere or more than once; the message shows where
            it nearly stands, or the places.
    """
    mark = BOM if text.startswith(BOM) else ""
    lines = _split(text.removeprefix(BOM))
    bare = [_bare(line) for line in lines]
    if not search.strip("\r\n"):
        raise ToolError("search is empty; give the whole lines to replace")
    wanted, new = _wanted(search.removeprefix(BOM)), _wanted(replace) if replace else []
    places = _places(bare, wanted)
    if not places and NOTED.search(search):
        wanted, new = _wanted(_unnoted(search).removeprefix(BOM)), _wanted(_unnoted(replace)) if replace else []
        places = _places(bare, wanted)
    if not places:
        raise ToolError(f"search does not match whole lines of {path}{_nearest(bare, wanted)}")
    if len(places) > 1:
        numbers = ", ".join(str(place + 1) for place in places[:MAX_PLACES])
        many = f"more than {MAX_PLACES}" if len(places) > MAX_PLACES else len(places)
        raise ToolError(f"search matches {many} places in {path} (lines {numbers}); add lines around it")
    if new == wanted:
        raise ToolError("search and replace are the same; nothing would change")
    (place,) = places
    after = place + len(wanted)
    ends = [line[len(bare_line) :] for line, bare_line in zip(lines, bare, strict=True)]
    before = ends[place - 1] if place else next((end for end in ends if end), "\n")
    changed = _with_ends(wanted, new, ends[place:after], before)
    if after == len(lines) and not ends[-1]:
        if new:
            changed[-1] = new[-1]
        elif place:
            lines[place - 1] = bare[place - 1]
    return Edited(text=mark + "".join([*lines[:place], *changed, *lines[after:]]), line=place + 1)


def _with_ends(wanted: list[str], new: list[str], ends: list[str], before: str) -> list[str]:
    """The new lines with their ends: those that stay keep theirs, the others take those they replace, in order."""
    head = 0
    while head < min(len(wanted), len(new)) and wanted[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(wanted), len(new)) - head and wanted[-1 - tail] == new[-1 - tail]:
        tail += 1
    middle = ends[head : len(ends) - tail]
    spare = middle[-1] if middle else ends[head - 1] if head else before
    new_ends = [*ends[:head], *middle[: len(new) - head - tail]]
    new_ends += [spare] * (len(new) - tail - len(new_ends)) + ends[len(ends) - tail :]
    usual = next((end for end in [*ends, before] if end), "\n")
    return [line + (end or usual) for line, end in zip(new, new_ends, strict=True)]


def num_lines(text: str) -> int:
    return text.count("\n") + (not text.endswith("\n") and bool(text))


def _split(text: str) -> list[str]:
    """Lines with their ends."""
    parts = text.split("\n")
    lines = [part + "\n" for part in parts[:-1]]
    return lines + ([parts[-1]] if parts[-1] else [])


def _bare(line: str) -> str:
    return line[:-2] if line.endswith("\r\n") else line.removesuffix("\n")


def _all_crlf(lines: list[str]) -> bool:
    return all(line.endswith("\r\n") or not line.endswith(("\n", "\r")) for line in lines)


def _wanted(text: str) -> list[str]:
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _shown(line: str) -> str:
    """A line as it is shown: unseen characters named, and of a long one its beginning and its end."""
    if len(line) > MAX_LINE_CHARS:
        half = MAX_LINE_CHARS // 2
        left_out = f"[... {len(line) - MAX_LINE_CHARS} characters left out ...]"
        return f"{_noted(line[:half])}{left_out}{_noted(line[-half:])}"
    return _noted(line)


def _noted(line: str) -> str:
    return UNSEEN.sub(lambda found: f"<U+{ord(found[0]):04X}>", line)


def _unnoted(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        one = chr(min(int(found[1], 16), 0x10FFFF))
        return one if UNSEEN.fullmatch(one) else found[0]

    return NOTED.sub(character, text)


def _places(lines: list[str], wanted: list[str]) -> list[int]:
    """Where the lines stand, up to one place more than are told. Linear: str.find is, and at most a few times."""
    whole, part = "\n" + "\n".join(lines) + "\n", "\n" + "\n".join(wanted) + "\n"
    found: list[int] = []
    line, counted = 0, 0
    at = whole.find(part)
    while at >= 0 and len(found) <= MAX_PLACES:
        line += whole.count("\n", counted, at)
        counted = at
        found.append(line)
        at = whole.find(part, at + 1)
    return found


def _nearest(lines: list[str], wanted: list[str]) -> str:
    """What stands in the file instead, for the message."""
    loose = _places([line.strip() for line in lines], [line.strip() for line in wanted])
    if loose:
        return f"; apart from blanks at the ends of lines it is:\n{_some(lines, loose[0], len(wanted))}"
    key = _pieces(next((line for line in wanted if line.strip()), ""))
    best, best_share = -1, 0.5
    for number, line in enumerate(lines[:MAX_COMPARED]):
        pieces = _pieces(line)
        total = pieces.total() + key.total()
        share = 2 * (pieces & key).total() / total if total else 0.0
        if share > best_share:
            best, best_share = number, share
    return f"; the nearest lines are:\n{_some(lines, best, len(wanted))}" if best >= 0 else ""


def _pieces(line: str) -> Counter[str]:
    """Pairs of neighbouring characters of the beginning of a line, blanks at its ends left out."""
    line = line[: 2 * COMPARED_CHARS].strip()[:COMPARED_CHARS]
    return Counter(map("".join, itertools.pairwise(line)))


def _some(lines: list[str], place: int, number: int) -> str:
    last = min(place + min(number, MAX_NEAR), len(lines))
    rows = [f"{n + 1}: {_shown(lines[n])}" for n in range(place, last)]
    if number > MAX_NEAR:
        rows.append(f"[{number - MAX_NEAR} more lines]")
    return "\n".join(rows)
