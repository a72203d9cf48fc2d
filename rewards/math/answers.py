"""The answer a response states: the last box; where there is none, what a reader would take."""

import re

from ..broken_off import goes_on, is_open, rest_after
from .boxes import LONGEST, boxes_of, joined, without_openings
from .denials import behind_denial, is_denied
from .expression_tokens import FUNCTIONS, GREEK
from .expressions import read_statement
from .text import TEXT, to_latex

_STATED = re.compile(
    r"(?:\b(?:answers?|(?:correct|right|best)\s++(?:option|choice))\**\s*+(?:(?:is|are)\b\s*+:?|:|=)|####|"
    r"^[^\S\n]*+\**A(?:nswer)?\**:|^[^\w\n]*+final answer[^\w\n]*+$)\**[ \t]*+",
    re.I | re.M,
)
_FINAL = re.compile(
    r"\b(?:(?:final|correct|right|true|real|actual) answer|(?:but|however|actually|instead)\W+(?:the )?answer) is:?\s*+"
    r"(?:\$\$?([^$\n]{1,500})\$|\\\(([^\n]{1,500}?)\\\)|\\\[([^\n]{1,500}?)\\\]|(-?\$?\d\S{0,200}))",
    re.I,
)
_FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<!\\)\$((?:[^$\\]|\\.)+?)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.S)
_POINT = re.compile(r"[(\[]\s*[^()\[\]\n]{1,80},[^()\[\]\n]{1,80}[)\]]")
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_NUMBER = re.compile(
    rf"(?<![\w.])-?\s?(?:{_DIGITS}(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+(?!\d|\.\d)|:\d+|\s\d+/\d+)?"
    r"(?:\s*\\?%|(?:e|\s*(?:×|\*|x|\\times)\s*10\s*\^\s*)[{]?-?\d+[}]?)?"
)
_JOINT = re.compile(r"\s*(?:,\s*(?:and|or)?|\band\b|\bor\b)\s*\$?\s*", re.I)
_DENIED = re.compile(r"(?:\b(?:not|never|than|instead of|except)|n['’]t)\s*\$?\s*$", re.I)
_CHOICE = re.compile(r"[\s*]*(?i:(?:option|choice)\s+)?(?:\W*\(([A-J])\)|[\s*]*([A-J])(?=\s*(?:[).:*]|$)))")
_CHOICE_ALONE = re.compile(r"\(?([A-J])\)?[.)]?")
_CHOICE_IS_RIGHT = re.compile(r"\b(?:option|choice)\s*\**\(?([A-J])\)?\**\s+is\s+(?:the\s+)?(?:correct|right)\b", re.I)
# Behind a choice or a number: another one, or what takes it back.
_ANOTHER_CHOICE = re.compile(
    r"[\s*)]*(?:or|and|nor|,|/|;|&)\s*(?:maybe|perhaps|possibly|either|option|choice)?\W*[A-J]\b"
)
_TAKEN_BACK = re.compile(
    r"[\s*$\\)]*(?:(?:or|and)\s+(?:more|less|fewer|greater|higher|lower|above|below|so|up)\b|"
    r"(?:is|was|seems|looks)\s+(?:not\b|wrong|false|incorrect)|(?:wrong|false|incorrect)\b)",
    re.I,
)
_BOUND = re.compile(
    r"\W*(?:at\s+(?:least|most)|(?:less|more|greater|fewer|larger|smaller|other)\s+than|under|over|above|below|not|never|"
    r"between|any\w*\s+but|everything\s+but|unlikely)\b",
    re.I,
)
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
_NAMES = sorted({*FUNCTIONS, *GREEK, "pi", "oo", "inf"}, key=len, reverse=True)
_NAME = re.compile(rf"(?<![a-zA-Z])(?:{'|'.join(_NAMES)})(?![a-zA-Z])")
_SHORT_PROSE = re.compile(r"[^\W\d_]{3,}|\bi\.e|\be\.g|\b(?:it|is|so|we|he|at|by|my)\b", re.I)
_PROSE = re.compile(r"\b(?:and|or|then|the|is|for|to|of|each|plus|costs?|pays?)\b|[a-z]{4,}\s+[a-z]{2,}", re.I)
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{\w+\*?\}")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
# An expression in plain text: operands, and the signs between two of them.
_OPERAND = rf"(?:(?:{'|'.join(_NAMES)})(?![a-zA-Z])|(?<![a-zA-Z])[a-zA-Z](?![a-zA-Z])|\d[\d,]*(?:\.\d+)?|[()πθ√!])"
_SPAN = re.compile(rf"{_OPERAND}+(?:\s?(?:\*\*|[-+*/^·×])\s?[-(]?{_OPERAND}+)*")
_TAIL = 4_000
"""Characters at the end of a response in which an answer without a box is looked for."""
_MOST_NUMBERS = 64
"""Numbers and points, from the last one on, that are looked at."""
_SHORT = 200
"""Characters of a response that can be an answer as a whole."""


def extract_answer(text: str, *, lenient: bool = True) -> str | None:
    """The answer a response states.

    Args:
        text: the whole response. What precedes ``</think>`` is not part of the answer; a ``<think>`` that is never
            closed leaves no answer.
        lenient: without a box, the last stated answer ("the answer is", "####", "A:"), then the last formula or
            number, unless the text breaks off behind it; an empty box is passed over for one before it. False: only
            the last box counts, which is how a response is read that met its limit.
    Returns:
        The content of the last ``\\boxed{...}`` (braces may nest; boxes joined by a comma, "and" or "or" are one
        list), or the fallback; None where nothing is stated. A last box that the words behind it take back ("is
        wrong, it is 6") is none; lenient, what they state is the answer.
    """
    if "</think>" in text:
        text = text.rpartition("</think>")[2]
    elif text.lstrip().startswith("<think>"):
        return None
    boxes = boxes_of(text)
    if lenient and any(box.content for box in boxes):
        boxes = [box for box in boxes if box.content]
    denied = None
    while boxes and is_denied(text[: boxes[-1].start]):
        denied = boxes.pop()
    if denied and not boxes:
        return _unboxed(text[denied.end :][-_TAIL:]) if lenient else None
    if boxes:
        rest = text[boxes[-1].end :]
        instead = behind_denial(rest)
        if instead is not None:
            return _unboxed(instead[-_TAIL:]) if lenient else None
        return (_final_after(rest[-_TAIL:]) if lenient else None) or joined(text, boxes) or None
    return _unboxed(text[-_TAIL:]) if lenient else None


def _final_after(rest: str) -> str | None:
    """What a response calls its final answer after its last box: the boxes were of steps before it."""
    stated = list(_FINAL.finditer(rest))
    return next(group for group in stated[-1].groups() if group).strip(" .") if stated else None


def _unboxed(text: str) -> str | None:
    text = without_openings(text)
    whole = _whole(text.strip())
    if is_open(text):
        return None
    for stated in reversed(list(_STATED.finditer(text))):
        sentence = _first_sentence(text[stated.end() :].lstrip().split("\n", 1)[0])
        if sentence and not _JUDGED.fullmatch(sentence):
            return None if goes_on(rest_after(text, stated.end())) else _in_sentence(sentence)
    right = _CHOICE_IS_RIGHT.findall(text)
    if right:
        return right[-1].upper()
    if whole:
        return whole
    found = _last_of(text.strip())
    return None if found is None or rest_after(text.strip(), found[1]) else found[0]


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
        rest = sentence[choice.end() :]
        hedged = _ANOTHER_CHOICE.match(rest) or _TAKEN_BACK.match(rest)
        return sentence[:LONGEST] if hedged else choice.group(1) or choice.group(2)
    if _whole(sentence) or _BOUND.match(sentence) or _is_expression(sentence):
        return sentence[:LONGEST]
    if _DAY.fullmatch(sentence):
        return sentence
    found = _last_of(sentence)
    if found is None or _TAKEN_BACK.match(sentence[found[1] :]):
        return sentence.strip(" *_")[:LONGEST] or None
    return found[0]


def _whole(text: str) -> str | None:
    """A text that is an answer and nothing else: one short line without prose, or one word."""
    text = text.strip().strip("*").strip()
    if not text or len(text) > _SHORT or "\n" in text:
        return None
    if re.fullmatch(r"[^\W\d_]+[.!]?", text):
        return text.rstrip(".!")
    if choice := _CHOICE_ALONE.fullmatch(text):
        return choice.group(1)
    plain = _NAME.sub(" ", _COMMAND.sub(" ", TEXT.sub(" ", _ENVIRONMENT.sub(" ", text))))
    plain = re.sub(r"(?<=\d)(?:or|and)(?=[A-Z])", " ", plain)
    mathematical = re.search(r"\d|\\|[a-z]\s*[=<>≤≥^+*/-]", to_latex(text))
    prose = _SHORT_PROSE.search(plain)
    return text.removesuffix(".") if mathematical and not prose and text.count("$") != 1 else None


def _is_expression(text: str) -> bool:
    """Whether all of a text is one formula, of known names and single letters."""
    plain = to_latex(text).strip(" *$")
    if not re.search(r"\d|\\|[=+*/^(]", plain) or re.search(r"[a-zA-Z]{2}", _NAME.sub(" ", _COMMAND.sub(" ", plain))):
        return False
    return read_statement(plain) is not None


def _last_of(text: str) -> tuple[str, int] | None:
    """(the last formula or number, where it ends); those listed with it belong to it, those denied do not count."""
    items = [
        (match.start(), match.end(), _content(match))
        for match in _FORMULA.finditer(text)
        if not _is_prose(_content(match))
    ]
    formulas = len(items)
    for pattern in (_POINT, _NUMBER):
        held = list(items)
        for match in list(pattern.finditer(text))[-_MOST_NUMBERS:]:
            if any(match.start() < end and start < match.end() for start, end, _ in held):
                continue
            if pattern is _NUMBER:
                items.append(_widened(text, match, held[:formulas]))
            elif re.search(r"\d", match.group()) and not _is_prose(match.group()):
                items.append((match.start(), match.end(), match.group().strip()))
    items = sorted(set(items))
    # "depending on $n$" names a variable; the answer was said before.
    items = [item for item in items if not re.fullmatch(r"[a-zA-Z]", item[2])] or items
    items = [item for item in items if not _DENIED.search(text[max(0, item[0] - 24) : item[0]])]
    if not items:
        return None
    last = len(items) - 1
    first = last
    while first > 0 and _JOINT.fullmatch(text[items[first - 1][1] : items[first][0]]):
        first -= 1
    end = items[last][1]
    if first == last:
        return items[last][2][:LONGEST], end
    listed = text[items[first][0] : end].strip()
    if not re.search(r"\s", listed):
        return listed[:LONGEST], end  # "2,74" may be one number
    joint = " or " if re.search(r"\bor\b", listed) else ", "
    return joint.join(item[2] for item in items[first:])[:LONGEST], end


def _widened(text: str, number: re.Match[str], formulas: list[tuple[int, int, str]]) -> tuple[int, int, str]:
    """A number with the expression around it: the 3 of "sqrt(3)/2" is no answer."""
    start, end = number.start(), number.end()
    before = max((stop for _, stop, _ in formulas if stop <= start), default=0)
    before = max(before, start - _SHORT)
    for span in _SPAN.finditer(text, before, min(len(text), end + _SHORT)):
        if span.start() <= start + len(number.group()) - len(number.group().lstrip()) and span.end() >= end:
            found = _readable(span.group())
            if found is not None and len(found) > len(number.group().strip()):
                return span.start(), span.end(), found
    return start, end, number.group().strip()


def _readable(span: str) -> str | None:
    """The span, less brackets that do not belong to it, where it is an expression of more than a number."""
    span = span.strip()
    while span.count(")") > span.count("(") and span.endswith(")"):
        span = span[:-1].rstrip()
    while span.count("(") > span.count(")") and span.startswith("("):
        span = span[1:].lstrip()
    if not re.search(r"[a-zA-Zπθ√*/^+!]|\d\s*-", span) or re.fullmatch(r"\d[\d,.]*!+|[\d,.]+\s?[a-zA-Z]", span):
        return None
    return span if read_statement(to_latex(span)) is not None else None


def _content(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group is not None).strip()


def _is_prose(formula: str) -> bool:
    """Whether what stands between two dollars is a sentence: they were signs of money."""
    return _PROSE.search(_COMMAND.sub(" ", TEXT.sub(" ", formula))) is not None
