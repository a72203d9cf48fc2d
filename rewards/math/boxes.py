"""Answers in boxes: ``\\boxed{...}`` in a response, and around a gold answer. In linear time."""

import re
from dataclasses import dataclass

from .forms import box_content

LONGEST = 2_000
"""Characters of an answer that are looked at; no gold answer comes near it."""
MOST = 50
"""Boxes that are looked at, from the last one on."""

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*+(?=\{)|\\boxed\s++(?=[^{])")
_OPENED = re.compile(r"\\+(?:boxed|fbox|framebox)\s*+\{")
_FARTHEST = 200
"""Characters between two boxes of one list."""
_GAP = r"(?:\\text\s*+\{[^{}]*+\}|\\q?quad|\\[()\[\],;! ]|[\s$])*+"
# Between boxes of one list: nothing but spacing, and what the next one is called.
_BETWEEN = re.compile(rf"{_GAP}(?:[a-zA-Z](?:_\{{?\w+\}}?)?\s*+=\s*+{_GAP})?")
_LISTED = re.compile(r",|;|&|(?:^\s*+\$?\s*+[a-z]++\s++)?\band\b|\bor\b")


@dataclass(frozen=True, slots=True)
class Box:
    """A box that is closed: its place in the text, and what it holds."""

    start: int
    end: int
    content: str


def boxes_of(text: str) -> list[Box]:
    """The last boxes that are closed, in order. Of a box within a box, what it holds is the outer one's content."""
    found: list[Box] = []
    for match in reversed(list(_BOX.finditer(text))[-MOST:]):
        box = _read(text, match)
        if box is None:
            continue
        # Those found before this one stand behind its start: within it, or after it.
        inner = [one for one in found if one.end <= box.end and _holds(text, box)]
        if inner:
            found = found[: len(found) - len(inner)]
            box = Box(box.start, box.end, joined(text, inner[::-1]))
        found.append(box)
    return found[::-1]


def _holds(text: str, box: Box) -> bool:
    """Whether a box has braces, and so may hold another."""
    return text[box.end - 1] == "}"


def _read(text: str, match: re.Match[str]) -> Box | None:
    start = match.end()
    piece = text[start : start + LONGEST]
    if not piece.startswith("{"):
        content = re.split(r"[\s$]", piece, maxsplit=1)[0]
        return Box(match.start(), start + len(content), content) if content else None
    found = box_content(piece, 0)
    return None if found is None else Box(match.start(), start + found[0], found[1])


def joined(text: str, boxes: list[Box]) -> str:
    """The content of the last box, with those that are listed right before it."""
    listed = [boxes[-1]]
    joints: list[str] = []
    for box in reversed(boxes[:-1]):
        between = text[box.end : listed[0].start]
        if len(between) > _FARTHEST:
            break
        connected = _LISTED.search(between) and _BETWEEN.fullmatch(_LISTED.sub("", between))
        if not connected and (between or box.content == listed[0].content):
            break
        joints.insert(0, " or " if re.search(r"\bor\b", between) else ", ")
        listed.insert(0, box)
    return "".join(box.content + joint for box, joint in zip(listed, [*joints, ""]))


def last_box(text: str) -> str | None:
    """The content of the last box that is closed, with those listed right before it; None: there is none."""
    boxes = boxes_of(text)
    return joined(text, boxes) if boxes else None


def bare_gold(text: str) -> str:
    """A gold answer without its box, also one that was never closed."""
    boxed = last_box(text)
    return _OPENED.sub("", text) if boxed is None else boxed


def without_openings(text: str) -> str:
    """The text without the beginnings of boxes that are never closed."""
    return _OPENED.sub("", text)
