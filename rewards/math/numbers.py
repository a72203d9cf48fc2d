"""Numbers as people write them, read exactly."""

import re
from dataclasses import dataclass
from fractions import Fraction

_LONGEST = 200
_LARGEST_EXPONENT = 300
_GROUPED = r"\d{1,3}(?:(?:,|\{,\}|\\,|\\!|,\\!|\\ | )\d{3})+(?!\d)"
_DECIMAL = rf"(?:(?:{_GROUPED}|\d+)(?:\.\d*)?|\.\d+)"
_FRACTION = re.compile(
    rf"\\frac\s*(?:\{{\s*(?P<top>[+-]?\s*{_DECIMAL})\s*\}}|(?P<short_top>\d))\s*"
    rf"(?:\{{\s*(?P<bottom>[+-]?\s*{_DECIMAL})\s*\}}|(?P<short_bottom>\d))|"
    rf"(?P<plain_top>{_DECIMAL})\s*/\s*(?P<plain_bottom>{_DECIMAL})"
)
_PLAIN = re.compile(_DECIMAL)
_REPEATING = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar)\s*(?:\{\s*(\d+)\s*\}|(\d))")
# "0.333...": a block that is written three times goes on for ever.
_DOTTED = re.compile(r"(\d*)\.(\d*?)(\d+?)\3{2,}\s*(?:\\[lc]?dots(?![a-zA-Z])|\.\.\.|…)")
_DECIMAL_COMMA = re.compile(r"([+-]?\s*\d+),(\d+)")
_SCALED = re.compile(
    rf"([+-]?\s*{_DECIMAL})\s*(?:\\[ ,;]\s*)*(?:\\text\s*\{{)?\s*(thousand|million|billion|trillion)\b\s*\}}?(.*)",
    re.S | re.I,
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_MIXED = re.compile(r"(\d+)\s*(?:\\[ ,;!]\s*)*(?=\\frac|\s\d+\s*/)(.+)")
_POWER = re.compile(
    rf"({_DECIMAL})\s*(?:[eE]|(?:\\times|\\cdot|\*|x)\s*10\s*\^\s*)(?:\{{\s*([+-]?\d+)\s*\}}|([+-]?\d+))"
)
_PERCENT = re.compile(r"\s*(?:\\%|%|\\text\{\s*(?:%|per\s?cent|pct)\s*\}|\b(?:per\s?cent|pct))$", re.I)
_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ONES += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number that was read.

    Attributes:
        value: without the percent sign.
        percent: whether one follows.
    """

    value: Fraction
    percent: bool = False

    def equals(self, other: "Number") -> bool:
        """Whether both are one number; "10 %" is 10 and 0.1 to those who write no sign, and 10 % to those who do."""
        if self.percent == other.percent:
            return self.value == other.value
        percent, plain = (self, other) if self.percent else (other, self)
        return plain.value in (percent.value, percent.value / 100)


def read_number(text: str) -> Number | None:
    """An integer, decimal, fraction, mixed number or power of ten, with its percent sign; None: it is no number.

    Thousands may be grouped by commas, LaTeX's thin spaces or blanks. ``text`` is canonical LaTeX.
    """
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    text, percents = _PERCENT.subn("", text)
    value = _signed(text)
    return None if value is None else Number(value=value, percent=bool(percents))


def read_decimal_comma(text: str) -> Fraction | None:
    """The number that "2,75" is where a comma stands for the point; None: it is nothing of the kind."""
    match = _DECIMAL_COMMA.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    return None if match is None else _signed(f"{match.group(1)}.{match.group(2)}")


def read_scaled(text: str) -> tuple[Fraction, str] | None:
    """The number that "3 million" is, and what follows it; None: it is nothing of the kind."""
    match = _SCALED.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    value = None if match is None else _signed(match.group(1))
    if match is None or value is None:
        return None
    return value * _SCALES[match.group(2).casefold()], match.group(3)


def number_word(word: str) -> int | None:
    """The value of "three" or "twenty-one", below a hundred; None for other words."""
    word = word.casefold()
    if word in _ONES:
        return _ONES.index(word)
    tens, _, ones = word.partition("-")
    if tens not in _TENS or (ones and ones not in _ONES[1:10]):
        return None
    return 10 * (_TENS.index(tens) + 2) + (_ONES.index(ones) if ones else 0)


def _signed(text: str) -> Fraction | None:
    sign = 1
    while match := re.match(r"\s*([+-])\s*", text):
        if match.group(1) == "-":
            sign = -sign
        text = text[match.end() :]
        if text.lstrip().startswith(("+", "-")):
            return None
    value = _unsigned(text.strip())
    return None if value is None else sign * value


def _unsigned(text: str) -> Fraction | None:
    if _PLAIN.fullmatch(text):
        return _decimal(text)
    if match := _FRACTION.fullmatch(text):
        return _fraction(match)
    if match := _MIXED.fullmatch(text):
        part = _FRACTION.fullmatch(match.group(2).strip())
        below = None if part is None else _fraction(part)
        # "3 7/2" is no mixed number: what follows the whole part is less than one.
        return Fraction(match.group(1)) + below if below is not None and 0 <= below < 1 else None
    if match := _REPEATING.fullmatch(text) or _DOTTED.fullmatch(text):
        whole, fixed, period = match.group(1) or "0", match.group(2), next(filter(None, match.groups()[2:]))
        scale = 10 ** len(fixed)
        return Fraction(int(whole + fixed), scale) + Fraction(int(period), scale * (10 ** len(period) - 1))
    if match := _POWER.fullmatch(text):
        exponent = int(match.group(2) or match.group(3))
        if abs(exponent) <= _LARGEST_EXPONENT:
            return _decimal(match.group(1)) * Fraction(10) ** exponent
    return None


def _decimal(text: str) -> Fraction:
    digits = re.sub(r"[^\d.+-]", "", text)
    return Fraction(digits.rstrip(".") if digits.strip(".") else "0")


def _fraction(match: re.Match[str]) -> Fraction | None:
    parts = match.groupdict()
    top = parts["top"] or parts["short_top"] or parts["plain_top"]
    bottom = _decimal(parts["bottom"] or parts["short_bottom"] or parts["plain_bottom"])
    return _decimal(top) / bottom if bottom else None
