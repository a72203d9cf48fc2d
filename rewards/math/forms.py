"""The forms an answer may have beyond one expression: tuples, lists, sets, intervals, columns. Text in, parts out."""

import re
from dataclasses import dataclass

from .text import TEXT, matching

_LETTER = r"(?:[a-zA-Z]|\\(?:theta|alpha|beta|lambda|phi|omega))(?:_(?:\w|\{\w+\}))?"
_RELATION = re.compile(r"(\\le |\\ge |<|>)")
_OR = re.compile(r"\\text\s*\{\s*or\s*\}|\\cup(?![a-zA-Z])|\\(?:lor|vee)(?![a-zA-Z])|(?<![a-zA-Z\\])or(?![a-zA-Z])")
_AND = re.compile(r"\\text\s*\{\s*(?:,\s*)?(?:and|or)\s*(?:,\s*)?\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])")
_AND_ALONE = re.compile(r"\\text\s*\{\s*and\s*\}|(?<![a-zA-Z\\])and(?![a-zA-Z])|\\(?:land|wedge)(?![a-zA-Z])|,")
_UNEQUAL = re.compile(rf"({_LETTER})\s*\\ne\s+([^,]+)")
_REAL_WHERE = re.compile(rf"^(?:{_LETTER}\s*\\in\s*)?\\mathbb\{{R\}}\s*[,;:|]\s*")
_MEMBER = re.compile(rf"^{_LETTER}\s*\\in(?![a-zA-Z])\s*")
_BUILDER = re.compile(rf"^\\\{{\s*{_LETTER}\s*(?:\\mid(?![a-zA-Z])|\\vert(?![a-zA-Z])|\||:)\s*(.*)\\\}}$", re.S)
_ASSIGNMENT = re.compile(rf"({_LETTER})\s*=\s*([^=]+)")
_COLUMN = re.compile(r"^\\begin\{(?:[pbv]?matrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{(?:[pbv]?matrix|array)\}$", re.S)
_MATRIX = re.compile(
    r"(?P<opener>[(\[]?)\s*\\begin\{(?P<kind>[pbB]?matrix|smallmatrix|array)\}(?:\{[^{}]*\})?(?P<rows>.*)"
    r"\\end\{(?P=kind)\}\s*(?P<closer>[)\]]?)",
    re.S,
)
_CLOSERS = {"(": ")", "[": "]", "\\{": "\\}"}
_MOST_PARTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One interval; "" as an end is infinity."""

    low: str
    high: str
    low_closed: bool
    high_closed: bool


def split_top(text: str, separator: str = ",") -> list[str]:
    """Parts between the separators that stand in no bracket."""
    parts, depth, start, i = [], 0, 0, 0
    while i < len(text):
        if text[i] == "\\":
            i += 1
            depth += {"{": 1, "}": -1}.get(text[i : i + 1], 0)
        elif text[i] in "([{":
            depth += 1
        elif text[i] in ")]}":
            depth -= 1
        elif text[i] == separator and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
        i += 1
    return [*parts, text[start:].strip()]


def tuple_of(text: str) -> list[str] | None:
    """The coordinates of "(a, b, ...)" or of a matrix of one column or row; None: it is neither."""
    column = _COLUMN.match(text.removeprefix("(").removesuffix(")").strip() if "\\begin" in text else text)
    if column:
        rows = [row.strip() for row in re.split(r"\\\\", column.group(1)) if row.strip()]
        cells = [cell.strip() for row in rows for cell in row.split("&")]
        lone = len(rows) == 1 or len(cells) == len(rows)
        return cells if lone and 2 <= len(cells) <= _MOST_PARTS else None
    inside = _inside(text, "(")
    parts = split_top(inside) if inside is not None else []
    return parts if 2 <= len(parts) <= _MOST_PARTS and all(parts) else None


def matrix_of(text: str) -> list[list[str]] | None:
    """The rows of a matrix of at least two rows and columns; None: it is none."""
    match = _MATRIX.fullmatch(text)
    if match is None or (match.group("opener"), match.group("closer")) not in (("", ""), ("(", ")"), ("[", "]")):
        return None
    rows = [[cell.strip() for cell in row.split("&")] for row in re.split(r"\\\\", match.group("rows")) if row.strip()]
    if not 2 <= len(rows) <= _MOST_PARTS or not 2 <= len(rows[0]) <= _MOST_PARTS or "\\begin" in match.group("rows"):
        return None
    return rows if len({len(row) for row in rows}) == 1 else None


def python_list_of(text: str) -> list[str] | None:
    """The members of "[a, b]", as a Python tool prints a list; None: it is something else."""
    inside = _inside(text, "[")
    parts = split_top(inside) if inside is not None else []
    return parts if 1 <= len(parts) <= _MOST_PARTS and all(parts) else None


def list_of(text: str) -> list[str] | None:
    """The members of "a, b", "a and b", "a or b" or "{a, b}", plus-minus written out; None: it is one answer."""
    text = _MEMBER.sub("", text)
    inside = _inside(text, "\\{")
    joined = _AND.sub(",", text if inside is None else inside)
    # "p = 1, q = 2; p = 3, q = 4" is a list of two.
    parts = [part for part in split_top(joined, ";" if len(split_top(joined, ";")) > 1 else ",") if part]
    parts = [sign for part in parts for sign in _both_signs(part)]
    if len(parts) > _MOST_PARTS or (len(parts) < 2 and inside is None) or not parts:
        return None
    return parts


def is_hedged(text: str) -> bool:
    """Whether an answer offers alternatives: "5 or 6"."""
    return bool(_OR.search(text.replace("\\cup", ""))) and len(list_of(text) or ()) > 1


def assignments_of(text: str) -> dict[str, str] | None:
    """Variable -> value of "x = 1, y = 2"; None: it is something else, or names a variable twice."""
    parts = list_of(text) or []
    found = [_ASSIGNMENT.fullmatch(part) for part in parts]
    if len(parts) < 2 or not all(found):
        return None
    pairs = {match.group(1): match.group(2).strip() for match in found if match}
    return pairs if len(pairs) == len(parts) else None


def intervals_of(text: str) -> tuple[list[Interval], bool] | None:
    """A union of intervals, written as such or as inequalities of one variable.

    Returns:
        (intervals, whether it must be one: "(1, 2)" alone may be a point); None: it is something else.
    """
    text = _MEMBER.sub("", text)
    builder = _BUILDER.match(text)
    text = (builder.group(1) if builder else _REAL_WHERE.sub("", text)).strip()
    if text == r"\mathbb{R}":
        return [Interval(low="", high="", low_closed=False, high_closed=False)], False
    found, certain = [], False
    for part in _OR.split(text):
        part = _MEMBER.sub("", part.strip().strip(",").strip())
        interval = _bracketed(part)
        intervals = [interval] if interval is not None else _without_point(part)
        if not intervals:
            intervals, certain = [one for one in (_inequality(part) or _both(part),) if one is not None], True
        if not intervals:
            return None
        certain = certain or any("[" in part[:1] or "]" in part[-1:] or not (one.low and one.high) for one in intervals)
        found += intervals
    return found, certain or len(found) > 1


def variables_of(text: str) -> set[str]:
    """The letters of which the inequalities of a text are; empty: it has none."""
    terms = [term.strip() for part in _OR.split(_MEMBER.sub("", text)) for term in _RELATION.split(part)[::2]]
    return {term for term in terms if re.fullmatch(_LETTER, term)} if _RELATION.search(text) else set()


def _without_point(part: str) -> list[Interval]:
    """The two intervals of "x is not a"; none where it says anything else."""
    match = _UNEQUAL.fullmatch(part)
    if match is None or _mentions(match.group(2), match.group(1)):
        return []
    low, high = ("", match.group(2)), (match.group(2), "")
    return [Interval(low=a, high=b, low_closed=False, high_closed=False) for a, b in (low, high)]


def _both(part: str) -> Interval | None:
    """The one interval of "x > a and x < b"."""
    bounds = [_inequality(piece.strip()) for piece in _AND_ALONE.split(part)]
    if len(bounds) != 2 or len(variables_of(_AND_ALONE.sub(r" \\cup ", part))) != 1:
        return None
    one, other = bounds
    if one is None or other is None or bool(one.low) is bool(other.low) or bool(one.high) is bool(other.high):
        return None
    low, high = (one, other) if one.low else (other, one)
    return Interval(low=low.low, high=high.high, low_closed=low.low_closed, high_closed=high.high_closed)


def _inside(text: str, opener: str) -> str | None:
    """What one pair of brackets around all of the text encloses."""
    closer = _CLOSERS[opener]
    if not (text.startswith(opener) and text.endswith(closer)) or len(text) < len(opener) + len(closer):
        return None
    inside = text[len(opener) : -len(closer)]
    depth, i = 0, 0
    while i < len(inside):
        step = 2 if inside[i] == "\\" else 1
        token = inside[i : i + step]
        depth += (token in _CLOSERS) - (token in _CLOSERS.values())
        if depth < 0:
            return None
        i += step
    return inside


def _both_signs(part: str) -> list[str]:
    if part.count(r"\pm") != 1:
        return [part]
    plus = re.sub(r"^\s*\\pm\s*", "", part) if part.lstrip().startswith(r"\pm") else re.sub(r"\\pm\s*", "+", part)
    return [plus, re.sub(r"\\pm\s*", "-", part)]


def _bracketed(part: str) -> Interval | None:
    if len(part) < 5 or part[0] not in "([" or part[-1] not in ")]":
        return None
    ends = split_top(part[1:-1])
    if len(ends) != 2 or not all(ends):
        return None
    low = "" if re.fullmatch(r"-\s*\\infty", ends[0].strip()) else ends[0]
    high = "" if re.fullmatch(r"\+?\s*\\infty", ends[1].strip()) else ends[1]
    return Interval(low=low, high=high, low_closed=part[0] == "[", high_closed=part[-1] == "]")


def _inequality(part: str) -> Interval | None:
    pieces = [piece.strip() for piece in _RELATION.split(part)]
    terms, relations = pieces[::2], pieces[1::2]
    if not all(terms):
        return None
    if len(terms) == 2:
        if re.fullmatch(_LETTER, terms[1]) and not re.fullmatch(_LETTER, terms[0]):
            terms, relations = terms[::-1], [_turned(relations[0])]
        if not re.fullmatch(_LETTER, terms[0]) or _mentions(terms[1], terms[0]):
            return None
        closed = "le" in relations[0] or "ge" in relations[0]
        above = relations[0] in (">", r"\ge")
        bound = "" if re.fullmatch(r"[+-]?\s*\\infty", terms[1]) else terms[1]
        if above:
            return Interval(low=bound, high="", low_closed=closed, high_closed=False)
        return Interval(low="", high=bound, low_closed=False, high_closed=closed)
    if len(terms) != 3 or not re.fullmatch(_LETTER, terms[1]):
        return None
    if all(relation in (">", r"\ge") for relation in relations):
        terms, relations = terms[::-1], [_turned(relation) for relation in relations[::-1]]
    if not all(relation in ("<", r"\le") for relation in relations):
        return None
    low = "" if re.fullmatch(r"-\s*\\infty", terms[0]) else terms[0]
    high = "" if re.fullmatch(r"\+?\s*\\infty", terms[2]) else terms[2]
    return Interval(low=low, high=high, low_closed=relations[0] == r"\le", high_closed=relations[1] == r"\le")


def _turned(relation: str) -> str:
    return {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}[relation]


def _mentions(term: str, letter: str) -> bool:
    return re.search(rf"(?<![a-zA-Z\\]){re.escape(letter)}(?![a-zA-Z])", TEXT.sub("", term)) is not None


def unwrapped(text: str) -> str:
    """Text without a pair of brackets around one expression: "(x)" is x, "(1, 2)" stays."""
    inside = _inside(text, "(")
    return inside.strip() if inside is not None and len(split_top(inside)) == 1 else text


def box_content(text: str, start: int) -> tuple[int, str] | None:
    """(end, content) of the braces that open at ``start``; None where they are not closed."""
    end = matching(text, start)
    return None if end < 0 else (end + 1, text[start + 1 : end].strip())
