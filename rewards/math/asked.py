"""What a question asks for, where an answer says it of itself: a percentage, a base, a unit.

A bare gold number says neither. "5 %" is 5 where percent were asked for and 0.05 elsewhere, 12 in base 8 is 10 where no
base was, and metres are no answer to "how many feet".
"""

import re

from .forms import unwrapped
from .numbers import read_number
from .units import named_units, split_unit, units_of

_PERCENT = re.compile(r"%|\bper\s?cent|\bpct\b|percentage", re.I)
_BASE = re.compile(
    r"\bbases?\b|\b(?:binary|ternary|octal|decimal|hexadecimal)\b|\d\s*_|digits?\b.*\brepresent|\bnumeral", re.I
)
_NUMERAL = re.compile(r"\(?(?P<digits>[A-F]*[0-9][0-9A-F]*)\)?\s*_\s*(?:\{\s*(\d+)\s*\}|(\d))")
_HOW_MANY = re.compile(
    r"\b(?:how many|number of|in|answer in)\s+(?:square\s+|cubic\s+|more\s+|whole\s+)?([a-z]+)", re.I
)


def contradicts_question(answer: str, gold: str, problem: str) -> str:
    """Why an answer that has the gold one's numeral is another one by what it says beside it; "" where it is not.

    Args:
        answer, gold: canonical LaTeX; the gold one says less.
        problem: the question; of an empty one nothing is known.
    """
    if not problem.strip():
        return ""
    number, wanted = read_number(unwrapped(answer)), read_number(unwrapped(gold))
    if number is not None and wanted is not None and number.percent and not wanted.percent and number.value != 0:
        was_asked = _PERCENT.search(problem) is not None
        return "it is a percentage, which was not asked for" if number.value == wanted.value and not was_asked else ""
    numeral = _NUMERAL.fullmatch(unwrapped(answer).strip())
    if numeral is not None and wanted is not None and not _BASE.search(problem):
        radix = int(numeral[2] or numeral[3])
        if not 2 <= radix <= 36 or _value(numeral["digits"], radix) != wanted.value:
            return "it is in a base that was not asked for"
    units, asked = units_of(split_unit(answer)[1]), named_units(_HOW_MANY.findall(problem))
    if any(kind in asked and name not in asked[kind] for kind, name in units.items()) and not split_unit(gold)[1]:
        return "it is in a unit that was not asked for"
    return ""


def _value(digits: str, radix: int) -> int | None:
    try:
        return int(digits, radix)
    except ValueError:
        return None
