"""The answer a response states: the last box; where there is none, what a reader would take."""

import re

from .math_forms import box_content
from .math_text import TEXT, to_latex

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(?=\{)|\\boxed\s+(?=[^\s{])")
_BOX_OPENED = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{")
_GAP = r"(?:\\text\s*\{[^{}]*\}|\\q?quad|\\[()\[\],;! ]|[\s$])*"
# Between boxes of one list: nothing but spacing, and what the next one is called.
_BETWEEN_BOXES = re.compile(rf"{_GAP}(?:[a-zA-Z](?:_\{{?\w+\}}?)?\s*=\s*{_GAP})?")
_LISTED = re.compile(r",|;|&|(?:^\s*\$?\s*[a-z]+\s+)?\band\b|\bor\b")
_STATED = re.compile(
    r"(?:\b(?:answers?|(?:correct|right|best)\s+(?:option|choice))\**\s*(?:(?:is|are)\b\s*:?|:|=)|####|"
    r"^\s*\**A(?:nswer)?\**:|^\W*final answer\W*$)\**[ \t]*",
    re.I | re.M,
)
_FINAL = re.compile(r"\bfinal answer is:?\s*(?:\$\$?([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]|(-?\$?\d\S*))", re.I)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$((?:[^$\\]|\\.)+?)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.S)
_POINT = re.compile(r"[(\[]\s*[^()\[\]\n]{1,80},[^()\[\]\n]{1,80}[)\]]")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_NUMBER = re.compile(
    rf"(?<![\w.])-?\s?(?:{_DIGITS}(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+(?!\d|\.\d)|:\d+|\s\d+/\d+)?"
    r"(?:\s*\\?%|(?:e|\s*(?:×|\*|x|\\times)\s*10\s*\^\s*)[{]?-?\d+[}]?)?"
)
_JOINT = re.compile(r"\s*(?:,\s*(?:and|or)?|\band\b|\bor\b)\s*\$?\s*", re.I)
_DENIED = re.compile(r"\b(?:not|n't|than|instead of)\s*\$?\s*$", re.I)
_CHOICE = re.compile(r"[\s*]*(?i:(?:option|choice)\s+)?(?:\W*\(([A-J])\)|[\s*]*([A-J])(?=\s*(?:[).:*]|$)))")
_CHOICE_ALONE = re.compile(r"\(?([A-J])\)?[.)]?")
_CHOICE_IS_RIGHT = re.compile(r"\b(?:option|choice)\s*\**\(?([A-J])\)?\**\s+is\s+(?:the\s+)?(?:correct|right)\b", re.I)
_DAY = re.compile(
    r"(?:(?:jan|febr)uary|march|april|may|june|july|august|(?:sept|nov|dec)ember|october)\s+\d{1,2}(?:st|nd|rd|th)?",
    re.I,
)
# "The answer is correct", "the answer is helpful to you": these state none.
_JUDGED = re.compile(
    r"\W*(?:(?:indeed|also|not)\s+)?(?:correct|right|wrong|incorrect|valid|reasonable|helpful|above|below)\b[^\d$\\]*",
    re.I,
)
_SENTENCE_END = re.compile(r"(?<=\S)(?<!i\.e)(?<!e\.g)[.!?](?=\s|$)")
_SHORT_PROSE = re.compile(r"[^\W\d_]{3,}|\bi\.e|\be\.g|\b(?:it|is|so|we|he|at|by|my)\b", re.I)
_PROSE = re.compile(r"\b(?:and|or|then|the|is|for|to|of|each|plus|costs?|pays?)\b|[a-z]{4,}\s+[a-z]{2,}", re.I)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{\w+\*?\}")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_LONGEST = 2_000
"""Characters of an answer that are looked at; no gold answer comes near it."""
_TAIL = 4_000
"""Characters at the end of a response in which an answer without a box is looked for."""
_MOST_BOXES = 50
_SHORT = 200
"""Characters of a response that can be an answer as a whole."""


def extract_answer(text: str, *, lenient: bool = True) -> str | None:
    """The answer a response states.

    Args:
        text: the whole response. What precedes ``</think>`` is not part of the answer; a ``<think>`` that is never
            closed leaves no answer.
        lenient: without a box, the last stated answer ("the answer is", "####", "A:"), then the last formula or
            number; an empty box is passed over for one before it. False: only the last box counts.
    Returns:
        The content of the last ``\\boxed{...}`` (braces may nest; boxes joined by a comma, "and" or "or" are one
        list), or the fallback; None where nothing is stated.
    """
    if "</think>" in text:
        text = text.rpartition("</think>")[2]
    elif text.lstrip().startswith("<think>"):
        return None
    boxes = _boxes(text)
    if lenient and any(content for _, _, content in boxes):
        boxes = [box for box in boxes if box[2]]
    if boxes:
        return (_final_after(text[boxes[-1][1] :]) if lenient else None) or _joined(text, boxes) or None
    return _unboxed(text[-_TAIL:]) if lenient else None


def last_box(text: str) -> str | None:
    """The content of the last box that is closed, with those listed right before it; None: there is none."""
    boxes = _boxes(text)
    return _joined(text, boxes) if boxes else None


def _boxes(text: str) -> list[tuple[int, int, str]]:
    """(start, end, content) of the last boxes that are closed."""
    matches = list(_BOX.finditer(text))[-_MOST_BOXES:]
    return [box for match in matches if (box := _read_box(text, match)) is not None]


def _read_box(text: str, match: re.Match[str]) -> tuple[int, int, str] | None:
    start = match.end()
    if text[start] != "{":
        content = re.split(r"[\s$]", text[start : start + _LONGEST], maxsplit=1)[0]
        return match.start(), start + len(content), content
    found = box_content(text[: start + _LONGEST], start)
    if found is None:
        return None
    end, content = found
    # A box within the box: what it holds is the answer.
    inner = last_box(content)
    return match.start(), end, content if inner is None else inner


def _joined(text: str, boxes: list[tuple[int, int, str]]) -> str:
    listed = [boxes[-1]]
    joints: list[str] = []
    for box in reversed(boxes[:-1]):
        if box[1] > listed[0][0]:
            continue  # this box holds the next one
        between = text[box[1] : listed[0][0]]
        connected = _LISTED.search(between) and _BETWEEN_BOXES.fullmatch(_LISTED.sub("", between))
        connected = connected or (not between and box[2] != listed[0][2])
        if not connected:
            break
        joints.insert(0, " or " if re.search(r"\bor\b", between) else ", ")
        listed.insert(0, box)
    return "".join(content + joint for (_, _, content), joint in zip(listed, [*joints, ""]))


def _final_after(rest: str) -> str | None:
    """What a response calls its final answer after its last box: the boxes were of steps before it."""
    stated = list(_FINAL.finditer(rest))
    return next(group for group in stated[-1].groups() if group).strip(" .") if stated else None


def _unboxed(text: str) -> str | None:
    text = _BOX_OPENED.sub("", text)
    for stated in reversed(list(_STATED.finditer(text))):
        sentence = _first_sentence(text[stated.end() :].lstrip().split("\n", 1)[0])
        if sentence and not _JUDGED.fullmatch(sentence):
            return _in_sentence(sentence)
    right = _CHOICE_IS_RIGHT.findall(text)
    if right:
        return right[-1].upper()
    return _whole(text.strip()) or _last_of(text.strip())


def _first_sentence(line: str) -> str:
    """The line up to a full stop that no formula holds."""
    held = [(match.start(), match.end()) for match in _FORMULA.finditer(line)]
    for stop in _SENTENCE_END.finditer(line):
        if not any(start <= stop.start() < end for start, end in held):
            return line[: stop.start()].strip()
    return line.strip()


def _in_sentence(sentence: str) -> str | None:
    choice = _CHOICE.match(sentence)
    if choice:
        return choice.group(1) or choice.group(2)
    if _whole(sentence):
        return sentence[:_LONGEST]
    if _DAY.fullmatch(sentence):
        return sentence
    return _last_of(sentence) or sentence.strip(" *_")[:_LONGEST] or None


def _whole(text: str) -> str | None:
    """A text that is an answer and nothing else: one short line without prose, or one word."""
    text = text.strip().strip("*").strip()
    if not text or len(text) > _SHORT or "\n" in text:
        return None
    if re.fullmatch(r"[^\W\d_]+[.!]?", text):
        return text.rstrip(".!")
    if choice := _CHOICE_ALONE.fullmatch(text):
        return choice.group(1)
    plain = _COMMAND.sub(" ", TEXT.sub(" ", _ENVIRONMENT.sub(" ", text)))
    mathematical = re.search(r"\d|\\|[a-z]\s*[=<>≤≥^+*/-]", to_latex(text))
    prose = _SHORT_PROSE.search(plain)
    return text.removesuffix(".") if mathematical and not prose and text.count("$") != 1 else None


def _last_of(text: str) -> str | None:
    """The last formula or number; those listed with it belong to it, those denied do not count."""
    items = [match for match in _FORMULA.finditer(text) if not _is_prose(_content(match))]
    for pattern in (_POINT, _NUMBER):
        held = [(match.start(), match.end()) for match in items]
        items += [
            match
            for match in pattern.finditer(text)
            if not any(match.start() < end and start < match.end() for start, end in held)
            and not (pattern is _POINT and (_is_prose(match.group()) or not re.search(r"\d", match.group())))
        ]
    items.sort(key=lambda match: match.start())
    # "depending on $n$" names a variable; the answer was said before.
    items = [item for item in items if not re.fullmatch(r"[a-zA-Z]", _content(item))] or items
    items = [item for item in items if not _DENIED.search(text[max(0, item.start() - 24) : item.start()])]
    if not items:
        return None
    last = len(items) - 1
    first = last
    while first > 0 and _JOINT.fullmatch(text[items[first - 1].end() : items[first].start()]):
        first -= 1
    if first == last:
        return _content(items[last])[:_LONGEST]
    listed = text[items[first].start() : items[last].end()].strip()
    if not re.search(r"\s", listed):
        return listed[:_LONGEST]  # "2,74" may be one number
    joint = " or " if re.search(r"\bor\b", listed) else ", "
    return joint.join(_content(item) for item in items[first:])[:_LONGEST]


def _content(match: re.Match[str]) -> str:
    if match.re is not _FORMULA:
        return match.group().strip()
    return next(group for group in match.groups() if group is not None).strip()


def _is_prose(formula: str) -> bool:
    """Whether what stands between two dollars is a sentence: they were signs of money."""
    return _PROSE.search(_COMMAND.sub(" ", TEXT.sub(" ", formula))) is not None
