"""Trees of formulas as sympy's objects, and whether two of these are equal. Runs in a process that can be killed.

Numbers are exact: a decimal is the fraction that it writes. Two exact numbers are equal or they are not; a decimal
stands for a number that has none of its own (1/3, the root of 2) where it is that number rounded.
"""

from fractions import Fraction
from typing import Any

import sympy
from sympy import Expr, Rational, S

ROUNDED_PLACES = 6
"""Places, and significant digits, from which on a decimal may stand for a number that no decimal equals."""
FLOAT_DIGITS, FLOAT_GAP = 15, Fraction(1, 10**12)
"""From so many digits on a decimal is what floating-point arithmetic printed, right up to this share of it."""
_LARGEST_BITS = 4_000_000
_LARGEST_FACTORIAL = 20_000
_PRECISION = 60
_EQUAL = sympy.Float(10) ** -45
_POINTS = ((7, 3), (11, 5), (2, 7), (-5, 3), (-3, 11))
"""Numerators and denominators that the values of variables are made of, a pair a trial."""

Tree = list[Any]


class TooLarge(ValueError):
    """A number that nobody asks for."""


def build(tree: Tree, names: dict[str, Any], log_base: Any) -> Any:
    """The sympy object of a tree.

    Args:
        names: what a name stands for, where it is no variable.
        log_base: of a logarithm that has none of its own.
    Raises:
        TooLarge: a power or factorial beyond all measure.
    """
    kind, *rest = tree
    if kind == "num":
        return Rational(rest[0])
    if kind == "sym":
        return names[rest[0]] if rest[0] in names else sympy.Symbol(rest[0], real=True)
    if kind == "const":
        return {"pi": sympy.pi, "e": sympy.E, "oo": sympy.oo}[rest[0]]
    if kind == "call":
        return call(rest[0], [build(part, names, log_base) for part in rest[1:]], log_base)
    parts = [build(part, names, log_base) for part in rest]
    if kind == "add":
        return sympy.Add(*parts)
    if kind == "mul":
        return sympy.Mul(*parts)
    if kind == "neg":
        return -parts[0]
    if kind in ("div", "frac"):
        return parts[0] / parts[1]
    if kind == "mixed":
        return parts[0] + parts[1]
    if kind == "percent":
        return parts[0] / 100
    if kind == "fact":
        return call("factorial", parts, log_base)
    assert kind == "pow"
    return power(*parts)


def power(base: Any, exponent: Any) -> Any:
    if isinstance(base, Rational) and isinstance(exponent, Rational) and abs(base) != 1 and base != 0:
        bits = max(abs(base.p), base.q).bit_length()
        if abs(exponent) > _LARGEST_BITS // bits:
            raise TooLarge("a power")
    return base**exponent


def call(name: str, arguments: list[Any], log_base: Any) -> Any:
    first = arguments[0]
    if name in ("factorial", "factorial2", "binomial") and any(
        isinstance(one, Rational) and abs(one) > _LARGEST_FACTORIAL for one in arguments
    ):
        raise TooLarge("a factorial")
    if name == "log":
        base = arguments[1] if len(arguments) == 2 else log_base
        return sympy.log(first) if base == sympy.E else sympy.log(first) / sympy.log(base)
    if name in ("log10", "log2"):
        return sympy.log(first) / sympy.log(10 if name == "log10" else 2)
    if name == "root":
        return root(first, arguments[1])
    if name in ("gcd", "lcm"):
        return getattr(sympy, name)(arguments)
    names = {"ln": "log", "ceil": "ceiling", "abs": "Abs", "max": "Max", "min": "Min", "acsch": "acsch"}
    return getattr(sympy, names.get(name, name))(*arguments)


def root(inside: Any, index: Any) -> Any:
    """The real root where there is one: of -8 the third one is -2."""
    if inside.is_negative and index.is_Integer and index.is_odd:
        return -power(-inside, 1 / index)
    return power(inside, 1 / index)


def is_rounded(decimal: Tree, value: Any) -> bool | None:
    """Whether a numeral is a number as far as its digits go.

    Args:
        decimal: ["num", ...], which may stand behind "neg".
        value: an exact number.
    Returns:
        None where exact comparison decides.
    """
    negative = decimal[0] == "neg"
    _, text, places, digits = decimal[1] if negative else decimal
    number = -Fraction(text) if negative else Fraction(text)
    if places is None or not value.is_finite or not value.is_real:
        return None
    close = sympy.N(value, digits + 25)
    gap = abs(Fraction(str(close)) - number)
    if digits >= FLOAT_DIGITS:
        return gap <= FLOAT_GAP * abs(number)
    finite = isinstance(value, Rational) and not _has_other_primes(value.q)
    if finite or places < ROUNDED_PLACES or digits < ROUNDED_PLACES:
        return None
    return gap <= Fraction(1, 2) / Fraction(10) ** places


def _has_other_primes(number: int) -> bool:
    """Whether a number has a prime factor beside 2 and 5: a fraction with that denominator never ends as a decimal."""
    for prime in (2, 5):
        while number % prime == 0:
            number //= prime
    return number != 1


def same(one: Any, other: Any) -> bool:
    """Whether two expressions are equal for all values of their variables."""
    if not (isinstance(one, Expr) and isinstance(other, Expr)):
        return bool(one == other)
    if any(side.has(sympy.nan, sympy.zoo) for side in (one, other)):
        return False
    if one == other:
        return True
    if one.is_infinite or other.is_infinite or one.has(sympy.oo) or other.has(sympy.oo):
        return False
    if isinstance(one, Rational) and isinstance(other, Rational):
        return False
    gap = one - other
    if gap.is_zero:
        return True
    if not gap.free_symbols:
        return _same_constant(one, other)
    return _same_at_points(one, other, gap)


def _close(one: Any, other: Any) -> bool | None:
    """Whether two numbers agree, relative to the larger; None where one of them has no value."""
    values = [sympy.N(side, _PRECISION) for side in (one, other)]
    if not all(value.is_number and value.is_finite for value in values):
        return None
    size = max(abs(value) for value in values)
    gap = abs(sympy.N(one - other, _PRECISION))
    if not (gap.is_Float or gap.is_Rational):
        return None
    return bool(gap <= _EQUAL * size) if size else True


def _same_constant(one: Any, other: Any) -> bool:
    one, other = one.doit(), other.doit()
    close = _close(one, other)
    if close is None:
        return False
    gap = sympy.expand(one - other)
    if close:
        # What is left may be beyond all digits: 1 + exp(-1000) is not 1.
        return gap.is_zero is not False
    if 0 in (one, other) or max(abs(sympy.N(one, 20)), abs(sympy.N(other, 20))) < sympy.Float(10) ** -40:
        return gap.is_zero is True or sympy.simplify(gap) == 0
    return False


def _same_at_points(one: Any, other: Any, gap: Any) -> bool:
    expanded = sympy.expand(gap)
    if expanded == 0:
        return True
    if expanded.is_polynomial(*expanded.free_symbols) and all(
        term.is_Rational for term in sympy.Poly(expanded, *expanded.free_symbols).coeffs()
    ):
        return False
    symbols = sorted(gap.free_symbols | one.free_symbols | other.free_symbols, key=str)
    agreed = 0
    for top, bottom in _POINTS:
        values = {
            symbol: Rational(top * (place + 2) + (1 if top > 0 else -1), bottom + 6 * place)
            for place, symbol in enumerate(symbols)
        }
        at = [side.subs(values).doit() for side in (one, other)]
        if any(side.has(sympy.nan, sympy.zoo, sympy.oo) for side in at):
            continue
        # Roots and logarithms of negative numbers have several values; the formulas need not take the same.
        if top < 0 and not all(sympy.N(side, 15).is_real for side in at):
            continue
        close = _close(*at)
        if close is False:
            return False
        agreed += bool(close)
    return agreed >= 2


def same_relation(one: tuple[str, Any, Any], other: tuple[str, Any, Any]) -> bool:
    """Whether (relation, left, right) say the same of their variables: a multiple by a number changes nothing."""
    turned = {"=": "=", "ne": "ne", "<": ">", ">": "<", "le": "ge", "ge": "le"}
    (kind, *sides), (other_kind, *other_sides) = one, other
    if kind == other_kind and all(same(a, b) for a, b in zip(sides, other_sides, strict=True)):
        return True
    gap, other_gap = sides[0] - sides[1], other_sides[0] - other_sides[1]
    if gap.free_symbols != other_gap.free_symbols or not gap.free_symbols:
        return False
    factor = _factor(gap, other_gap)
    if factor is None:
        return False
    if kind in ("=", "ne"):
        return kind == other_kind
    return other_kind == (kind if factor > 0 else turned[kind])


def _factor(one: Any, other: Any) -> Any:
    """The number that ``one`` is a multiple of ``other`` by; None where there is none."""
    symbols = sorted(one.free_symbols, key=str)
    values = {symbol: Rational(13 + 6 * place, 7) for place, symbol in enumerate(symbols)}
    below = other.subs(values)
    if below.is_zero or not sympy.N(below).is_finite:
        return None
    factor = one.subs(values) / below
    if not factor.is_number or factor.is_zero or not sympy.N(factor).is_real:
        return None
    return factor if same(sympy.expand(one), sympy.expand(factor * other)) else None


def same_object(gold: Any, answer: Any) -> bool:
    """Whether two objects of sympy are equal, whose numbers are compared one by one."""
    if isinstance(gold, Expr) and isinstance(answer, Expr):
        return same(gold.doit(), answer.doit())
    if isinstance(gold, sympy.MatrixBase) and isinstance(answer, sympy.MatrixBase):
        return gold.shape == answer.shape and all(map(same, gold.flat(), answer.flat()))
    if isinstance(gold, sympy.Tuple) and isinstance(answer, sympy.Tuple):
        return len(gold) == len(answer) and all(map(same_object, gold, answer))
    if isinstance(gold, sympy.FiniteSet) and isinstance(answer, sympy.FiniteSet):
        return _matched(list(gold.args), list(answer.args))
    if isinstance(gold, sympy.Interval) and isinstance(answer, sympy.Interval):
        closed = (gold.left_open, gold.right_open) == (answer.left_open, answer.right_open)
        return bool(closed) and same(gold.start, answer.start) and same(gold.end, answer.end)
    if isinstance(gold, sympy.Set) and isinstance(answer, sympy.Set):
        return gold == answer or _same_sets(gold, answer)
    if isinstance(gold, sympy.core.relational.Relational) and type(gold) is type(answer):
        return same_relation(_sides(gold), _sides(answer))
    return bool(gold == answer)


def _sides(relation: Any) -> tuple[str, Any, Any]:
    names = {"==": "=", "!=": "ne", "<": "<", ">": ">", "<=": "le", ">=": "ge"}
    return names[relation.rel_op], relation.lhs, relation.rhs


def _matched(golds: list[Any], answers: list[Any]) -> bool:
    if len(golds) != len(answers):
        return False
    for answer in answers:
        found = next((place for place, gold in enumerate(golds) if same_object(gold, answer)), None)
        if found is None:
            return False
        del golds[found]
    return True


def _same_sets(gold: Any, answer: Any) -> bool:
    if type(gold) is type(answer) and isinstance(gold, sympy.Union) and _matched(list(gold.args), list(answer.args)):
        return True
    return gold.symmetric_difference(answer).is_empty is True or gold.symmetric_difference(answer) is S.EmptySet
