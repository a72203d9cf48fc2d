"""Units behind a number: taken off, and told apart where they are of one kind."""

import re
from collections.abc import Iterable

from .remarks import is_remark
from .text import TEXT

_KINDS = {
    "length": "mm cm dm m km in ft yd mi nm",
    "time": "ms s min h d week month year",
    "mass": "mg g kg t oz lb",
    "money": "cent dollar euro pound yen rupee",
    "volume": "ml l gal qt pt",
    "angle": "deg rad",
}
_KIND_OF = {unit: kind for kind, units in _KINDS.items() for unit in units.split()}
_LONG = {
    "millimeter": "mm", "centimeter": "cm", "decimeter": "dm", "meter": "m", "kilometer": "km", "inch": "in",
    "foot": "ft", "feet": "ft", "yard": "yd", "mile": "mi", "millisecond": "ms", "second": "s", "sec": "s",
    "minute": "min", "hour": "h", "hr": "h", "day": "d", "milligram": "mg", "gram": "g", "kilogram": "kg",
    "ton": "t", "ounce": "oz", "lb": "lb", "milliliter": "ml", "liter": "l", "litre": "l", "gallon": "gal",
    "quart": "qt", "pint": "pt", "degree": "deg", "radian": "rad", "metre": "m", "centimetre": "cm",
    "kilometre": "km", "millimetre": "mm", "inche": "in", "wk": "week", "yr": "year",
}  # fmt: skip
_SURE = ("mm", "cm", "km", "ft", "mg", "kg", "ml")
_SIGNS = {"\\$": "dollar", "€": "euro", "£": "pound", "¥": "yen"}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_FACTOR = re.compile(r"(?P<per>/|\bper\b)|(?P<word>[a-z]+)(?:\s*\^?\s*\{?\s*(?P<power>-?[1-9])\s*\}?)?")
_SHORT = frozenset(_KIND_OF) | {"mph", "kph", "km/h", "m/s", "kmh", "hz", "kw", "kwh", "sq", "cu", "n", "j", "w", "v"}
_NOT_UNITS = frozenset(
    {"and", "or", "if", "for", "where", "when", "with", "but", "not", "to", "mod", "is", "are", "sin", "cos", "tan"}
    | {"log", "ln", "exp", "sqrt", "pi", "am", "pm", "as", "then", "than", "max", "min", "gcd", "lcm", "equals"}
)
_POWER = r"(?:\s*\^\s*(?:\{\s*-?\d\s*\}|-?\d))?"
_MOST_TAILS = 8
_SPACE = r"(?:\\[,;:! ]|~|\s|\\cdot|\\times|/)*"
_TAIL = re.compile(
    rf"{_SPACE}\\(?:text|textbf|textit|textrm|mathrm|mbox|operatorname|rm)\s*\{{([^{{}}]*)\}}({_POWER})$"
)
_DEGREES = re.compile(r"\s*\^\{\\circ\}\s*(?:[CF])?$")
_WORDS = re.compile(
    rf"(?P<number>[\d.,{{}}\\/+\s-]*(?:\\(?:frac|sqrt|pi)(?![a-zA-Z])[\d{{}}\\/\s]*)*[\d}}i])"
    rf"(?P<space>[\s~-]*)(?P<unit>[A-Za-z]+{_POWER}(?:[\s/.-]+[A-Za-z]+{_POWER})*)\s*"
)


def split_unit(text: str, *, short: bool = True) -> tuple[str, str]:
    """(quantity, unit) of an answer; the unit is "" where there is none.

    Args:
        text: canonical LaTeX.
        short: whether a lone letter ("5 m") is a unit, and not a variable.
    """
    rest, unit = re.sub(r"\\\$|[€£¥]", "", text).strip(), ""
    for _ in range(_MOST_TAILS):
        if degrees := _DEGREES.search(rest):
            rest, unit = rest[: degrees.start()], "deg"
        elif (tail := _TAIL.search(rest)) and _is_unit(tail.group(1)):
            per = "/" if "/" in tail.group().partition("\\")[0] else ""
            rest, unit = rest[: tail.start()], f"{per}{tail.group(1).strip()}{tail.group(2)} {unit}".strip()
        else:
            break
        if not rest.strip():
            return text, ""
    if not unit and (match := _WORDS.fullmatch(rest)) and _is_plain_unit(match, short):
        rest, unit = match.group("number"), match.group("unit")
    # Before the number, where it stands beside none.
    sign = next((name for sign, name in _SIGNS.items() if sign in text), "")
    return rest.strip(), unit or sign


def units_differ(one: str, other: str) -> bool:
    """Whether two units contradict: both name one kind, and not the same unit of it to the same power. Metres are not
    kilometres, square metres no metres, m/s no km/h. Unknown ones never differ."""
    first, second = _factors(one), _factors(other)
    return any(first[kind] != second[kind] for kind in first.keys() & second.keys())


def units_of(unit: str) -> dict[str, str]:
    """What is known of a unit: kind -> unit of it."""
    return {kind: name for kind, (name, _) in _factors(unit).items()}


def named_units(words: Iterable[str]) -> dict[str, set[str]]:
    """The units among words: kind -> units of it. Letters alone, and words that mean more often something else, are
    none."""
    found: dict[str, set[str]] = {}
    for word in words:
        name = _name(word)
        if (
            (len(word) > 2 or word in _SURE)
            and name in _KIND_OF
            and word.casefold() not in ("second", "minute", "degree", "pound", "pounds", "foot")
        ):
            found.setdefault(_KIND_OF[name], set()).add(name)
    return found


def _factors(unit: str) -> dict[str, tuple[str, int]]:
    """What is known of a unit: kind -> (unit, power) of "square metres", "km/h", "dollars per pound"."""
    text = re.sub(r"\\(?:cdot|times)(?![a-zA-Z])|[*·]", " ", TEXT.sub(r" \1 ", unit).casefold())
    text = text.replace("mph", "mi/h").replace("kph", "km/h").replace("kmh", "km/h")
    found: dict[str, tuple[str, int]] = {}
    sign, prefixed = 1, 1
    for match in _FACTOR.finditer(text):
        word = match["word"]
        if match["per"]:
            sign = -1
        elif word in _POWERS:
            prefixed = _POWERS[word]
        elif word in ("squared", "cubed") and found:
            kind, (name, power) = list(found.items())[-1]
            found[kind] = (name, power * (2 if word == "squared" else 3))
        else:
            name = _name(word)
            if name in _KIND_OF:
                found.setdefault(_KIND_OF[name], (name, sign * prefixed * int(match["power"] or 1)))
            prefixed = 1
    return found


def _is_unit(words: str) -> bool:
    first = re.split(r"[\s~.]+", words.strip(" ~.").casefold())[0]
    named = re.search(r"[a-zA-Z]", words) and first not in _NOT_UNITS and not re.fullmatch(r"\(?[A-J]\)?", words)
    # "feet and 2 inches" holds a second number; "cm2" does not.
    return bool(named) and not is_remark(words) and not re.search(r"(?<![a-zA-Z^{])\d", words)


def _is_plain_unit(match: re.Match[str], short: bool) -> bool:
    words = re.split(r"[\s/.-]+", re.sub(_POWER, "", match.group("unit")).casefold())
    first = words[0]
    if (first in _NOT_UNITS and first != "min") or is_remark(match.group("unit")):
        return False
    if len(first) == 1:
        return short and first in _SHORT
    spaced = bool(match.group("space").strip() or match.group("space"))
    return _name(first) in _SHORT or (spaced and len(first) >= 3) or (len(words) > 1 and first in _SHORT)


def _name(unit: str) -> str:
    word = TEXT.sub(r"\1", unit).casefold().strip(" ~.")
    word = re.split(r"[\s^/]", word)[0] if not re.search(r"per|/|sq|cub|\^", word) else word
    for name in (word, word.removesuffix("s"), word.removesuffix("es")):
        if name in _LONG or name in _KIND_OF:
            return _LONG.get(name, name)
    return word
