"""Whether two answers are the same: rules from the cheap and certain to the symbolic comparison."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .math_forms import (
    Interval,
    assignments_of,
    intervals_of,
    is_hedged,
    list_of,
    tuple_of,
    unwrapped,
    variables_of,
)
from .math_text import TEXT, bare, canonical, words_of
from .numbers import Number, number_word, read_decimal_comma, read_number, read_scaled
from .units import split_unit, units_differ

Verify = Callable[[str, str], bool]
"""(answer, gold) -> whether they are mathematically equal."""

_CHOICE = re.compile(
    r"(?:(?i:option|choice|answer)\s+)?(?:\\text(?:bf|rm|it)?\s*\{\s*)?"
    r"(?:\(\s*([A-Z])\s*\)\s*\}?(?P<rest>.*)|([A-Z])(?:[.):]\s.*|[.):]?))",
    re.S,
)
_LETTERS = re.compile(r"\(?[A-Z]\)?(?:(?:\s*(?:,|;|/|\band\b)\s*)+\(?[A-Z]\)?)+")
# What stands before "=": a name, with its arguments, and nothing that could be solved for.
_NAMED = re.compile(r"(?:\\[a-zA-Z]+\s*)?[a-zA-Z]+(?:_\w|_\{[^{}]*\})?(?:\([^()=]*\))?\s*=\s*([^=<>]+)")
_SOLVABLE = re.compile(r"-?\d[\d.]*\s*[a-zA-Z]\s*=")
_CONDITION = re.compile(r"(?:,|\\q?quad|\\[ ,;]|\s)*\\text\s*\{\s*(?:for|where|if|when)\b.*$", re.S)
_CONGRUENCE = re.compile(r"(?:[a-z]\s*\\equiv\s*)?(.+?)\s*\\pmod\{(\d+)\}")
_BASE = re.compile(r"\(?(?P<digits>[A-F]*[0-9][0-9A-F]*)\)?\s*_\s*(?:\{\s*(?:\\text\s*\{\s*)?(\w+)\s*\}?\s*\}|(\d))")
_TIME = re.compile(r"(\d{1,2}):(\d\d)([ap])?m?")
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_DEEPEST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether two answers are the same, and the rule that says so."""

    same: bool
    rule: str


def decide(answer: str, gold: str, verify: Verify) -> Decision:
    """Compare two answers, bare or in LaTeX. ``verify`` is asked only where no rule decides."""
    return _decide(canonical(answer), canonical(gold), verify, 0)


def _decide(answer: str, gold: str, verify: Verify, depth: int) -> Decision:
    """Of canonical texts."""
    for rule in _RULES:
        same = rule(answer, gold)
        if same is not None:
            return Decision(same=same, rule=rule.__name__.strip("_"))
    if depth < _DEEPEST:
        for structure in _STRUCTURES:
            same = structure(answer, gold, lambda a, b: _decide(a, b, verify, depth + 1).same)
            if same is not None:
                return Decision(same=same, rule=structure.__name__.strip("_"))
        stripped = _without_units(answer, gold)
        if stripped is not None:
            below = _decide(*stripped, verify, depth + 1)
            return Decision(same=below.same, rule=f"units, {below.rule}")
    return Decision(same=verify(answer, gold), rule="symbolic")


def _text(answer: str, gold: str) -> bool | None:
    left, right = bare(answer), bare(gold)
    if left == right:
        return bool(left)
    return None if left and right else False


def _choice(answer: str, gold: str) -> bool | None:
    """A letter of several: "(C)", "C.", "(C) 25". A gold "C" alone may be a variable, an answer "(C)" is not."""
    wanted, given = (_CHOICE.fullmatch(TEXT.sub(r"\1", text).strip()) for text in (gold, answer))
    if wanted is None or given is None:
        return None
    if wanted.group("rest") and wanted.group("rest").strip():
        return None
    return (wanted.group(1) or wanted.group(3)) == (given.group(1) or given.group(3))


def _clock(answer: str, gold: str) -> bool | None:
    """Times of day; one that does not say which half of it is taken as the other says."""
    wanted, given = _TIME.fullmatch(_plain(gold)), _TIME.fullmatch(_plain(answer))
    if wanted is None or given is None or not (wanted.group(3) or given.group(3)):
        return None
    same = (int(wanted.group(1)), wanted.group(2)) == (int(given.group(1)), given.group(2))
    return same and (not wanted.group(3) or not given.group(3) or wanted.group(3) == given.group(3))


def _plain(text: str) -> str:
    return re.sub(r"[.\s\\~]+", "", TEXT.sub(r"\1", text)).casefold()


def _base(answer: str, gold: str) -> bool | None:
    """Numerals with their base: equal digits of one base; where only one names it, the digits decide."""
    wanted, given = _BASE.fullmatch(gold), _BASE.fullmatch(answer)
    if wanted is None and given is None:
        return None
    one = (wanted.group("digits"), _radix(wanted)) if wanted else (gold.strip(), None)
    other = (given.group("digits"), _radix(given)) if given else (answer.strip(), None)
    if not re.fullmatch(r"[0-9A-F]+", one[0]) or not re.fullmatch(r"[0-9A-F]+", other[0]):
        return None
    return one[0] == other[0] and (None in (one[1], other[1]) or one[1] == other[1])


def _radix(match: re.Match[str]) -> int | None:
    text = match.group(2) or match.group(3)
    return int(text) if text.isdigit() else _BASES.get(text.casefold())


def _number(answer: str, gold: str) -> bool | None:
    """Exact; two that differ and could be one rounded are left to the symbolic comparison."""
    one, other = read_number(unwrapped(gold)), read_number(unwrapped(answer))
    if one is None or other is None:
        return _number_otherwise(answer, gold, other, one)
    if other.equals(one):
        return True
    whole = one.value.denominator == other.value.denominator == 1
    return False if whole or one.percent or other.percent else None


def _number_otherwise(answer: str, gold: str, number: Number | None, wanted: Number | None) -> bool | None:
    """Where one of the two alone is a number as such: the other may be "2,75" or "3 million"."""
    if wanted is not None and number is None:
        return wanted.value in (read_decimal_comma(answer), read_scaled(answer)) or None
    # A gold "3,4" is more often two numbers, and a reader would not take "3.4" for them.
    if number is not None and wanted is None and not re.fullmatch(r"\S*,\d", gold):
        return number.value in (read_decimal_comma(gold), read_scaled(gold)) or None
    return None


def _letters(answer: str, gold: str) -> bool | None:
    """Several of the letters of a choice, in any order: "A, C", "A and C"."""
    wanted, given = (TEXT.sub(r"\1", text).strip() for text in (gold, answer))
    if not _LETTERS.fullmatch(wanted) or not _LETTERS.fullmatch(given):
        return None
    return set(re.findall(r"[A-Z]", wanted)) == set(re.findall(r"[A-Z]", given))


def _words(answer: str, gold: str) -> bool | None:
    """Words are compared without case and full stops; "yes" is never "no", but "abc" may be "cab"."""
    left, right = words_of(answer), words_of(gold)
    if left is None or right is None or min(len(left), len(right)) < 2:
        return None
    if left == right or left.replace(" ", "") == right.replace(" ", ""):
        return True
    return False if TEXT.fullmatch(gold) or " " in right else None


def _alternatives(answer: str, gold: str, same: Callable[[str, str], bool]) -> bool | None:
    """ "5 or 6" is no answer where one is asked for; "1/2 or 0.5" is one answer."""
    one_asked = list_of(gold) is None and intervals_of(gold) is None and tuple_of(gold) is None
    if not one_asked or not is_hedged(answer) or intervals_of(answer) is not None:
        return None
    return all(same(part, gold) for part in list_of(answer) or ("",))


def _labelled(answer: str, gold: str, same: Callable[[str, str], bool]) -> bool | None:
    """A value behind the letter of its choice: "(B) 5" is 5, to those who ask for the value."""
    wanted, given = (_CHOICE.fullmatch(TEXT.sub(r"\1", text).strip()) for text in (gold, answer))
    if (wanted is None) is (given is None):
        return None
    rest = ((given or wanted).group("rest") or "").strip()  # type: ignore[union-attr]
    if not rest:
        return None
    return same(rest, gold) if given else same(answer, rest)


def _congruence(answer: str, gold: str, same: Callable[[str, str], bool]) -> bool | None:
    """Residues: of one modulus, where both name it."""
    one, other = _CONGRUENCE.fullmatch(gold), _CONGRUENCE.fullmatch(answer)
    if one is None and other is None:
        return None
    if one and other and one.group(2) != other.group(2):
        return False
    return same(other.group(1) if other else answer, one.group(1) if one else gold)


def _assignments(answer: str, gold: str, same: Callable[[str, str], bool]) -> bool | None:
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


def _value(answer: str, gold: str, same: Callable[[str, str], bool]) -> bool | None:
    """ "f(2) = 5" is 5, and "A = 1/(4 - w), for w < 4" is what it says before the condition."""
    if not _CONDITION.search(gold) and (found := _CONDITION.search(answer)):
        return same(answer[: found.start()], gold) or None
    if _SOLVABLE.match(answer) and read_number(gold) is not None:
        return False  # "2x = 5" is not 5
    named = _NAMED.fullmatch(answer)
    return None if named is None or "=" in gold else same(named.group(1).strip(), gold) or None


def _interval(answer: str, gold: str, same: Callable[[str, str], bool]) -> bool | None:
    """Unions of intervals, in brackets or as inequalities; "(1, 2)" on both sides is a point."""
    one, other = intervals_of(gold), intervals_of(answer)
    if one is None or other is None or not (one[1] or other[1]):
        return None
    variables = [variables_of(text) for text in (gold, answer)]
    if all(variables) and variables[0] != variables[1]:
        return None  # of which variable matters; the symbolic comparison knows
    return _matched(other[0], one[0], lambda a, b: _same_interval(a, b, same))


def _same_interval(answer: Interval, gold: Interval, same: Callable[[str, str], bool]) -> bool:
    closed = answer.low_closed == gold.low_closed and answer.high_closed == gold.high_closed
    ends = ((answer.low, gold.low), (answer.high, gold.high))
    return closed and all(a == b or (bool(a and b) and same(a, b)) for a, b in ends)


def _tuple(answer: str, gold: str, same: Callable[[str, str], bool]) -> bool | None:
    one, other = tuple_of(gold), tuple_of(answer)
    if one is None or other is None:
        return None
    return len(one) == len(other) and all(same(a, b) for a, b in zip(other, one))


def _list(answer: str, gold: str, same: Callable[[str, str], bool]) -> bool | None:
    """Lists and sets, in any order."""
    one, other = list_of(gold), list_of(answer)
    if one and not other and (point := tuple_of(answer)) and not gold.startswith("\\{"):
        # Numbers asked for one after the other, given as a point.
        return (len(one) == len(point) and all(map(same, point, one))) or None
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


def _without_units(answer: str, gold: str) -> tuple[str, str] | None:
    """Both without their units, where that changes anything and the units do not contradict; None: as they are."""
    held = TEXT.fullmatch(answer)
    quantity, unit = split_unit(_counted(held.group(1) if held and re.match(r"[-+]?\d", held.group(1)) else answer))
    wanted, wanted_unit = split_unit(gold, short=False)
    if (quantity, wanted) == (answer, gold):
        return None
    if units_differ(unit, wanted_unit):
        return "", wanted
    return quantity, wanted


def _counted(text: str) -> str:
    """ "three boxes" as "3 boxes"."""
    plain = TEXT.sub(r"\1", text).strip()
    sign = re.match(r"(?:negative|minus)\s+", plain, re.I)
    plain = plain[sign.end() :] if sign else plain
    word, space, rest = plain.partition(" ")
    value = number_word(word)
    if value is None or re.search(r"\d|\b(?:hundred|thousand|[mb]illion|half|halves|thirds?|quarters?)\b", rest):
        return text
    value = -value if sign else value
    return f"{value} {rest}" if space else str(value)


_RULES = (_text, _clock, _base, _number, _choice, _letters, _words)
_STRUCTURES = (_alternatives, _labelled, _congruence, _assignments, _value, _interval, _tuple, _list)
