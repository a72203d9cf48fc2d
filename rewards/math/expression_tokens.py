"""Tokens of a formula, in LaTeX or as a Python tool prints it. One pass, in linear time."""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

LONGEST = 2_000
"""Characters of a formula that is read; no answer comes near it."""
_LARGEST_EXPONENT = 1_000
_LONGEST_RUN = 4
"""Letters in a row that are a product of variables; more are a word."""

_GROUP = r"(?:\{,\}|\\!,\\!|,\\!|\\!,|\\,|\\!)"
_TOKEN = re.compile(
    rf"""
    (?P<space>(?:\s|~|\\\$|\\[,;:!\ ]|\\q?quad(?![a-zA-Z])|\{{\}})+)
  | (?P<number>(?:(?P<whole>\d{{1,3}}(?:{_GROUP}\d{{3}})+(?!\d)|\d+)(?P<point>\.(?P<fixed>\d*))?|\.(?P<lone>\d+))
       (?:\\(?:overline|bar)\s*\{{(?P<period>\d+)\}})?(?P<power>[eE](?:\+?\d+|-\d\d+)(?![\d.]))?)
  | (?P<word>\\(?:text(?:bf|it|rm|sf|tt)?|mathrm|mathsf|mbox|operatorname\*?)\s*\{{(?P<inside>[^{{}}]*)\}})
  | (?P<accent>\\(?:vec|hat|bar|overline|tilde|dot|overrightarrow|widehat)\s*\{{(?P<under>[a-zA-Z][a-zA-Z']*)\}})
  | (?P<command>\\[a-zA-Z]+|\\[{{}}|%])
  | (?P<letters>[a-zA-Z]+)
  | (?P<sign>\*\*|==|!=|[-+*/^_()\[\]{{}}|!%':=<>,])
    """,
    re.X,
)
_DIGITS = re.compile(r"\d+")

_TRIGONOMETRIC = "sin cos tan cot sec csc sinh cosh tanh"
_AS_THEY_ARE = (
    f"{_TRIGONOMETRIC} coth sech csch exp ln log gcd lcm max min floor sqrt cbrt root factorial binomial sign"
)
_LETTERS = """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega
"""
FUNCTIONS = {
    **{name: name for name in _AS_THEY_ARE.split()},
    **{f"{prefix}{name}": f"a{name}" for name in _TRIGONOMETRIC.split() for prefix in ("a", "arc", "ar")},
    "lg": "log10", "log10": "log10", "log2": "log2", "tg": "tan", "ctg": "cot", "cosec": "csc", "arctg": "atan",
    "ceiling": "ceil", "ceil": "ceil", "abs": "abs", "Abs": "abs", "fabs": "abs", "pow": "pow", "comb": "binomial",
    "Rational": "ratio", "Fraction": "ratio", "sgn": "sign", "Integer": "value", "Float": "value", "int": "value",
}  # fmt: skip
"""Spelling -> name of a function."""
GREEK = frozenset(_LETTERS.split())
_PLAIN_NAMES = {"pi": "pi", "Pi": "pi", "oo": "oo", "inf": "oo", "infinity": "oo"}
_PREFIXES = sorted((name for name in FUNCTIONS if len(name) > 2 or name == "ln"), key=len, reverse=True)

Kind = Literal["number", "name", "function", "constant", "command", "sign"]


@dataclass(frozen=True, slots=True)
class Token:
    """A token.

    Attributes:
        kind: of it.
        text: the name; of a command or sign as written.
        value: of a number, exact.
        places: digits after the point of a number, less its exponent; None where it has no point.
        digits: significant digits of a number.
        glued: whether it follows the token before without a space.
    """

    kind: Kind
    text: str
    value: Fraction = Fraction(0)
    places: int | None = None
    digits: int = 0
    glued: bool = False


def tokens_of(text: str) -> list[Token] | None:
    """The tokens of a formula; None where a character, a command or a word in it has no meaning here."""
    if len(text) > LONGEST:
        return None
    tokens: list[Token] = []
    at, glued = 0, False
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.end() == at:
            return None
        at = match.end()
        if match["space"]:
            glued = False
            continue
        found = _token(match, glued)
        if found is None:
            return None
        tokens += found
        glued = True
    return tokens


def _token(match: re.Match[str], glued: bool) -> list[Token] | None:
    if match["number"]:
        number = _number(match, glued)
        return None if number is None else [number]
    if match["word"]:
        return _named(match["inside"].strip(), glued, upright=True)
    if match["accent"]:
        return [Token("name", re.sub(r"\s", "", match["accent"]), glued=glued)]
    if match["command"]:
        return _command(match["command"], glued)
    if match["letters"]:
        return _named(match["letters"], glued, upright=False)
    sign = {"**": "^", "==": "="}.get(match["sign"], match["sign"])
    return [Token("sign", sign, glued=glued)]


def _number(match: re.Match[str], glued: bool) -> Token | None:
    text = match["number"]
    power = match["power"] or ""
    exponent = int(power[1:]) if len(power) < 8 and power else 0
    if len(power) >= 8 or abs(exponent) > _LARGEST_EXPONENT:
        return None
    whole = "".join(_DIGITS.findall(match["whole"] or ""))
    fixed = match["fixed"] or match["lone"] or ""
    point = bool(match["point"] or match["lone"])
    if match["period"] and not point:
        return None
    value = Fraction(int(whole + fixed or "0"), 10 ** len(fixed))
    if match["period"]:
        period = match["period"]
        value += Fraction(int(period), 10 ** len(fixed) * (10 ** len(period) - 1))
    value *= Fraction(10) ** exponent
    # "4.\overline{9}" is no integer numeral, though it is 5.
    decimal = (bool(fixed) and not match["period"]) or set(match["period"] or "") == {"9"}
    digits = len((whole + fixed).lstrip("0"))
    return Token("number", text, value, len(fixed) - exponent if decimal or power else None, digits, glued)


def _named(word: str, glued: bool, *, upright: bool) -> list[Token] | None:
    """The names in a run of letters: a function, a constant, or one variable a letter."""
    if word in FUNCTIONS:
        return [Token("function", FUNCTIONS[word], glued=glued)]
    if word in _PLAIN_NAMES:
        return [Token("constant", _PLAIN_NAMES[word], glued=glued)]
    if word in GREEK:
        return [Token("name", word, glued=glued)]
    if word == "mod":
        return None
    if upright:
        return [_letter(word, glued)] if len(word) == 1 and word.isascii() and word.isalpha() else None
    if len(word) > _LONGEST_RUN:
        return None
    for prefix in _PREFIXES:
        if word.startswith(prefix) and len(word) == len(prefix) + 1:
            return [Token("function", FUNCTIONS[prefix], glued=glued), _letter(word[-1], True)]
    return [_letter(letter, glued or place > 0) for place, letter in enumerate(word)]


def _letter(letter: str, glued: bool) -> Token:
    return Token("constant" if letter == "e" else "name", letter, glued=glued)


def _command(command: str, glued: bool) -> list[Token] | None:
    name = command[1:]
    if name in ("pi", "infty"):
        return [Token("constant", {"pi": "pi", "infty": "oo"}[name], glued=glued)]
    if name in GREEK or name in ("ell", "angle", "triangle"):
        return [Token("name", name, glued=glued)]
    if name == "imath":
        return [Token("name", "i", glued=glued)]
    if name in ("cdot", "times", "ast"):
        return [Token("sign", "*", glued=glued)]
    if name == "div":
        return [Token("sign", ":", glued=glued)]
    if name in ("lvert", "rvert", "vert", "mid"):
        return [Token("sign", "|", glued=glued)]
    if name in FUNCTIONS and name not in ("sqrt", "root", "pow", "factorial"):
        return [Token("function", FUNCTIONS[name], glued=glued)]
    if name == "%":
        return [Token("sign", "%", glued=glued)]
    return [Token("command", name, glued=glued)]
