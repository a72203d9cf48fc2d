"""Whether two answers are the same: rules from the cheap and certain to the symbolic comparison."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from .asked import contradicts_question
from .evaluated import is_left_open, is_unsimplified, repeats
from .forms import split_top, unwrapped
from .numbers import Number, number_word, read_decimal_comma, read_number, read_scaled
from .remarks import is_remark
from .structures import STRUCTURES, chosen, is_one_choice
from .text import TEXT, bare, canonical, words_of
from .units import split_unit, units_differ

Verify = Callable[[str, str], bool]
"""(answer, gold) -> whether they are mathematically equal."""

_LETTERS = re.compile(r"\(?[A-Z]\)?(?:\s*(?:[,;/]\s*(?:and\b\s*)?|and\b\s*)\(?[A-Z]\)?)+")
_BASE = re.compile(r"\(?(?P<digits>[A-F]*[0-9][0-9A-F]*)\)?\s*_\s*(?:\{\s*(?:\\text\s*\{\s*)?(\w+)\s*\}?\s*\}|(\d))")
_TIME = re.compile(r"(\d{1,2}):(\d\d)([ap])?m?")
# "4.\\overline{9}", "4.999...": it equals 5, and is nobody's way to write it.
_NINES = re.compile(
    r"[-+]?\s*\d*\.\d*?(?:\\(?:overline|bar|dot)\s*(?:\{\s*9+\s*\}|9)|9{3,}\s*(?:\\[lc]?dots(?![a-zA-Z])|\.\.\.|…))"
)
_SIGNS = re.compile(r"[-+]\s*[-+]\s*[-+]")
_CAPITALS = re.compile(r"[A-Z]{2,}")
_ROMAN = re.compile(r"(?=.*[IVX])M*(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_DEEPEST = 3
_MOST_QUESTIONS = 200
"""Symbolic comparisons of the parts of one answer; beyond them it is not equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether two answers are the same, and the rule that says so."""

    same: bool
    rule: str


def decide(answer: str, gold: str, verify: Verify, *, problem: str | None = None) -> Decision:
    """Compare two answers, bare or in LaTeX. ``verify`` is asked only where no rule decides.

    Args:
        problem: the question, where an answer has to be worked out: "17 + 25" is then not 42, and the formula that
            was to be changed not the changed one. None: any equal form is right.
    """
    comparison, texts = _Comparison(verify, problem), (canonical(answer), canonical(gold))
    decision = comparison.decide(*texts, 0)
    if problem is None or not decision.same or decision.rule == "text":
        return decision
    against = "it repeats the question" if repeats(answer, gold, problem) else contradicts_question(*texts, problem)
    return Decision(same=False, rule=f"{decision.rule}, but {against}") if against else decision


class _Comparison:
    """Of canonical texts; the symbolic comparison is asked so many questions and no more."""

    def __init__(self, verify: Verify, problem: str | None) -> None:
        self.verify, self.problem = verify, problem
        self.left = _MOST_QUESTIONS

    def decide(self, answer: str, gold: str, depth: int) -> Decision:
        for rule in _RULES:
            same = rule(answer, gold)
            if same is not None:
                return self.worked_out(Decision(same=same, rule=rule.__name__.strip("_")), answer, gold)
        if depth < _DEEPEST:
            for structure in STRUCTURES:
                same = structure(answer, gold, lambda a, b: self.decide(a, b, depth + 1).same)
                if same is not None:
                    return Decision(same=same, rule=structure.__name__.strip("_"))
            stripped = _without_units(answer, gold)
            if stripped is not None:
                below = self.decide(*stripped, depth + 1)
                return Decision(same=below.same, rule=f"units, {below.rule}")
        self.left -= 1
        same = self.left >= 0 and self.verify(answer, gold)
        return self.worked_out(Decision(same=same, rule="symbolic"), answer, gold)

    def worked_out(self, decision: Decision, answer: str, gold: str) -> Decision:
        """Not the same where a value is asked for and the answer leaves it to be worked out."""
        if self.problem is None or not decision.same or decision.rule == "text":
            return decision
        if is_left_open(answer, gold):
            return Decision(same=False, rule=f"{decision.rule}, but it is not worked out")
        if is_unsimplified(answer, gold, self.problem):
            return Decision(same=False, rule=f"{decision.rule}, but it is not in simplest form")
        return decision


def _text(answer: str, gold: str) -> bool | None:
    left, right = bare(answer), bare(gold)
    if left == right:
        return bool(left)
    return None if left and right else False


def _unusual(answer: str, gold: str) -> bool | None:
    """Numerals that nobody writes, for one that is written as usual."""
    odd = _NINES.search(answer) or _SIGNS.search(answer)
    return False if odd and not (_NINES.search(gold) or _SIGNS.search(gold)) else None


def _contradictory(answer: str, gold: str) -> bool | None:
    """ "x = 5 = 6" states no value: whole numbers that are said to be equal, and are not."""
    if "=" not in answer or "=" in gold:
        return None
    read = [read_number(unwrapped(part)) for part in split_top(answer, "=")]
    values = {one.value for one in read if one is not None and not one.percent and one.value.denominator == 1}
    return False if len(values) > 1 else None


def _capitals(answer: str, gold: str) -> bool | None:
    """ "VI" is not "IV", and of three letters and more the order counts: a word, or who came first. "BA" may be AB."""
    wanted, given = (re.sub(r"\s", "", TEXT.sub(r"\1", text)) for text in (gold, answer))
    if not _CAPITALS.fullmatch(wanted) or not _CAPITALS.fullmatch(given):
        return None
    return wanted == given if len(wanted) > 2 or _ROMAN.fullmatch(wanted) else None


def _choice(answer: str, gold: str) -> bool | None:
    """A letter of several: "(C)", "C.", "(C) 25". "(C) or (B)" and "(C) is wrong" choose none."""
    wanted, given = chosen(gold), chosen(answer)
    if wanted is None or given is None or wanted[1]:
        return None
    return wanted[0] == given[0] and is_one_choice(given[1])


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
        return wanted.value in (read_decimal_comma(answer), _scaled(answer)) or None
    # A gold "3,4" is more often two numbers, and a reader would not take "3.4" for them.
    if number is not None and wanted is None and not re.fullmatch(r"\S*,\d", gold):
        return number.value in (read_decimal_comma(gold), _scaled(gold)) or None
    return None


def _scaled(text: str) -> Fraction | None:
    """The number of "3 million dollars"; None where it is none, or something is said of it."""
    found = read_scaled(text)
    return None if found is None or is_remark(found[1]) else found[0]


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


_RULES = (_text, _unusual, _contradictory, _clock, _base, _number, _choice, _letters, _capitals, _words)
