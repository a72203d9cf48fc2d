"""Answers of parts: structures whose parts are compared one by one.

Each structure takes (answer, gold, same), canonical texts and a comparison of parts, and says whether the two are one
answer; None leaves it to the next.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from .expressions import Tree, read_expression
from .forms import (
    Interval,
    assignments_of,
    intervals_of,
    is_hedged,
    list_of,
    matrix_of,
    python_list_of,
    split_top,
    tuple_of,
    variables_of,
)
from .numbers import read_number
from .remarks import is_remark
from .text import TEXT

Same = Callable[[str, str], bool]

_CHOICE = re.compile(
    r"(?:(?i:option|choice|answer)\s+)?(?:\\text(?:bf|rm|it)?\s*\{\s*)?"
    r"(?:\(\s*([A-Z])\s*\)\s*\}?(?P<rest>.*)|([A-Z])(?:[.):](?P<after>\s.*)|[.):]?))",
    re.S,
)
_OTHER_CHOICE = re.compile(r"\(\s*[A-Z]\s*\)|^\W*(?:or|and|,|/|;|&)\s*[A-Z]\b")
_CONNECTED = re.compile(r"\s*(?:or|and|nor|not|but)\b|\s*[,/|;&?]|\s*\\(?:lor|vee|land|wedge|cup|ne)(?![a-zA-Z])", re.I)
_SOLVABLE = re.compile(r"-?\d[\d.]*\s*[a-zA-Z]\s*=")
_CONDITION = re.compile(r"(?:,|\\q?quad|\\[ ,;]|\s)*\\text\s*\{\s*(?:for|where|if|when)\b(.*)$", re.S)
_RELATION = re.compile(r"[<>=]|\\(?:le|ge|ne|in)(?![a-zA-Z])")
_CONGRUENCE = re.compile(r"([a-z]\s*\\equiv\s*)?([^,;]+?)\s*\\([pb])mod\{(\d+)\}")
# "\text{Area: } 5", "The answer is 5".
_INTRODUCED = re.compile(r"(\\text\s*\{\s*)?([A-Za-z][A-Za-z' -]*?)\s*(?::|\bis\b:?)\s*\}?\s*(?=[^\s}])(.+)", re.S)
_SAYING = frozenset(["the", "final", "answer", "answers", "is", "correct", "right", "true", "result", "value", "total"])
_NAMES = ("sym", "mul", "add", "neg", "frac", "div", "call")


def chosen(text: str) -> tuple[str, str] | None:
    """(letter, what stands behind it) of one of several choices: "(C)", "C.", "(C) 25"; None: it is none."""
    match = _CHOICE.fullmatch(TEXT.sub(r"\1", text).strip())
    if match is None:
        return None
    return match.group(1) or match.group(3), (match.group("rest") or match.group("after") or "").strip()


def is_one_choice(rest: str) -> bool:
    """Whether what stands behind a letter is its value, and no other letter, doubt or denial."""
    return not (_CONNECTED.match(rest) or _OTHER_CHOICE.search(rest) or is_remark(rest))


def alternatives(answer: str, gold: str, same: Same) -> bool | None:
    """ "5 or 6" is no answer where one is asked for; "1/2 or 0.5" is one answer."""
    one_asked = list_of(gold) is None and intervals_of(gold) is None and tuple_of(gold) is None
    if not one_asked or not is_hedged(answer) or intervals_of(answer) is not None:
        return None
    return all(same(part, gold) for part in list_of(answer) or ("",))


def labelled(answer: str, gold: str, same: Same) -> bool | None:
    """A value behind the letter of its choice: "(B) 5" is 5, to those who ask for the value."""
    wanted, given = chosen(gold), chosen(answer)
    if (wanted is None) is (given is None):
        return None
    rest = (given or wanted or ("", ""))[1]
    if not rest:
        return None
    return same(rest, gold) if given else same(answer, rest)


def introduced(answer: str, gold: str, same: Same) -> bool | None:
    """ "The area is 5", "Total: 5": what is said of the value before it is no part of it."""
    match = _INTRODUCED.fullmatch(answer)
    if match is None or read_number(gold) is None:
        return None
    words = set(match.group(2).casefold().split()) - _SAYING
    if is_remark(" ".join(words)) or (words and not match.group(1)):
        return None
    return same(match.group(3).strip(), gold)


def congruence(answer: str, gold: str, same: Same) -> bool | None:
    """Residues: of one modulus, where both name it. "5 \\bmod 7" is a remainder that is left to be taken, where the
    gold answer names no modulus."""
    one, other = _CONGRUENCE.fullmatch(gold), _CONGRUENCE.fullmatch(answer)
    if one is None and other is None:
        return None
    if one and other and one.group(4) != other.group(4):
        return False
    if one is None and other and other.group(3) == "b" and not other.group(1):
        return False
    return same(other.group(2) if other else answer, one.group(2) if one else gold)


def assignments(answer: str, gold: str, same: Same) -> bool | None:
    """ "x = 1, y = 2" against another such, or against the point (1, 2), variables by the alphabet."""
    one, other = assignments_of(gold), assignments_of(answer)
    if one and other:
        return one.keys() == other.keys() and all(same(other[name], one[name]) for name in one)
    named, point = (one, tuple_of(answer)) if one else (other, tuple_of(gold))
    if not named or point is None:
        return None
    values = [named[name] for name in sorted(named)]
    pairs = zip(point, values) if one else zip(values, point)
    return len(values) == len(point) and all(same(a, b) for a, b in pairs)


def conditional(answer: str, gold: str, same: Same) -> bool | None:
    """ "A = 1/(4 - w), for w < 4" is what it says before the condition."""
    found = None if _CONDITION.search(gold) else _CONDITION.search(answer)
    if found is None or not _RELATION.search(found.group(1)) or is_remark(found.group(1)):
        return None
    return same(answer[: found.start()], gold) or None


def value(answer: str, gold: str, same: Same) -> bool | None:
    """ "f(2) = 5" is 5: what stands behind a name."""
    if _SOLVABLE.match(answer) and read_number(gold) is not None:
        return False  # "2x = 5" is not 5
    given, wanted = _named(answer), _named(gold, trusted=True)
    if given is not None and wanted is not None:
        return same(given[1], wanted[1]) if given[0] == wanted[0] else None
    if given is not None and "=" not in gold:
        return same(given[1], gold) or None
    if wanted is not None and "=" not in answer:
        return same(answer, wanted[1]) or None
    return None


def _named(text: str, *, trusted: bool = False) -> tuple[str, str] | None:
    """(name, value) of "name = ... = value"; of a trusted text also the value of a chain without a name."""
    parts = split_top(text, "=")
    if len(parts) < 2 or not all(parts) or re.search(r"[<>]|\\(?:le|ge|ne|not|approx)(?![a-zA-Z])", text):
        return None
    if len(split_top(text)) > 1 or len(split_top(text, ";")) > 1:
        return None
    name = re.sub(r"\s", "", parts[0])
    if trusted and (len(parts) > 2 or not re.search(r"(?<![_\w{])\d|[-+]", parts[0])):
        return name, parts[-1]
    words = TEXT.fullmatch(parts[0])
    if words is not None:
        return None if is_remark(words.group(1)) else (name, parts[-1])
    names = [read_expression(part) for part in tuple_of(parts[0]) or [parts[0]]]
    return (name, parts[-1]) if all(tree is not None and _is_name(tree) for tree in names) else None


def _is_name(tree: Tree) -> bool:
    """Whether a tree is of names alone: "x", "f(x)", "a + b"; and of numbers only as arguments: "f(2)"."""
    if tree[0] not in _NAMES:
        return False
    parts = [part for part in tree[1:] if isinstance(part, list)]
    if tree[0] == "mul" and len(parts) == 2 and parts[0][0] == "sym" and parts[1][0] in ("num", "neg"):
        return True  # "f(2)" is read as a product
    return all(map(_is_name, parts))


def interval(answer: str, gold: str, same: Same) -> bool | None:
    """Unions of intervals, in brackets or as inequalities; "(1, 2)" on both sides is a point."""
    one, other = intervals_of(gold), intervals_of(answer)
    if one is None or other is None or not (one[1] or other[1]):
        return None
    variables = [variables_of(text) for text in (gold, answer)]
    if all(variables) and variables[0] != variables[1]:
        return None  # of which variable matters; the symbolic comparison knows
    return _matched(other[0], one[0], lambda a, b: _same_interval(a, b, same))


def _same_interval(answer: Interval, gold: Interval, same: Same) -> bool:
    closed = answer.low_closed == gold.low_closed and answer.high_closed == gold.high_closed
    ends = ((answer.low, gold.low), (answer.high, gold.high))
    return closed and all(a == b or (bool(a and b) and same(a, b)) for a, b in ends)


def ratio(answer: str, gold: str, same: Same) -> bool | None:
    """ "2:4:6" is 1:2:3. Of two terms a ratio is a fraction, which the symbolic comparison knows."""
    one, other = split_top(gold, ":"), split_top(answer, ":")
    if max(len(one), len(other)) < 3 or "=" in gold + answer:
        return None
    if len(one) != len(other) or not all([*one, *other]):
        return False
    return all(same(f"({a})*({one[0]})", f"({b})*({other[0]})") for a, b in zip(other, one))


def matrix(answer: str, gold: str, same: Same) -> bool | None:
    """Matrices of one shape, entry by entry."""
    one, other = matrix_of(gold), matrix_of(answer)
    if one is None or other is None:
        return None
    if [len(row) for row in one] != [len(row) for row in other]:
        return False
    return all(same(a, b) for rows in zip(other, one) for a, b in zip(*rows))


def tuple_(answer: str, gold: str, same: Same) -> bool | None:
    """Tuples and columns; a point may be given without its brackets."""
    one, other = tuple_of(gold), tuple_of(answer)
    if one is not None and other is None and gold.startswith("(") and not answer.startswith(("\\{", "[")):
        other = [part for part in split_top(answer) if part]
    if one is None or other is None or len(other) < 2:
        return None
    return len(one) == len(other) and all(same(a, b) for a, b in zip(other, one))


def list_(answer: str, gold: str, same: Same) -> bool | None:
    """Lists and sets, in any order."""
    one, other = list_of(gold), list_of(answer)
    if one and not other and (point := tuple_of(answer)) and not gold.startswith("\\{"):
        # Numbers asked for one after the other, given as a point.
        return (len(one) == len(point) and all(map(same, point, one))) or None
    if one and other is None:
        other = python_list_of(answer)
    if one is None or other is None:
        return None
    # As sets: a member that is said twice is one.
    return all(any(same(a, b) for b in one) for a in other) and all(any(same(a, b) for a in other) for b in one)


def _matched(answers: Sequence[Any], golds: Sequence[Any], same: Callable[[Any, Any], bool]) -> bool:
    """Whether each answer is another one of the golds, and none is left."""
    if len(answers) != len(golds):
        return False
    left = list(golds)
    for answer in answers:
        found = next((i for i, gold in enumerate(left) if same(answer, gold)), None)
        if found is None:
            return False
        del left[found]
    return True


STRUCTURES = (
    alternatives,
    labelled,
    introduced,
    congruence,
    assignments,
    conditional,
    value,
    interval,
    ratio,
    matrix,
    tuple_,
    list_,
)
"""In this order."""
