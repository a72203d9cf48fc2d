"""Whether an answer is a value, or leaves what the question asked to be worked out.

The rule where the gold answer is a number is PRM800K's (``grading/grader.py``): for an integer an integer is asked, in
a harmless form ("5.0", "1{,}000"). For another number each part of the answer that is rational has to be written as one
numeral: "5\\sqrt{2}" is worked out, "\\sqrt{25 + 25}" and "2 + 3 + \\sqrt{2}" are not.
"""

import math
import re
from fractions import Fraction
from typing import Any

from .expressions import Tree, read_statement
from .text import bare, canonical

_TO_WORK_OUT = frozenset({"factorial2", "binomial", "gcd", "lcm", "max", "min", "floor", "ceil", "abs", "sign"})
_LARGEST_DENOMINATOR, _GAP = 60, 1e-11
_SIMPLEST = re.compile(
    r"\b(?:simplest|lowest\s+terms|simplif\w*|reduced?\b|common\s+fraction|relatively\s+prime|coprime)|\\?gcd\b|"
    r"common\s+(?:factor|divisor)",
    re.I,
)
_OPERATION = re.compile(r"[-+*/^!(]|\\[a-zA-Z]")
_FLOATS: dict[str, Any] = {
    **{name: getattr(math, name) for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "sqrt", "cbrt")},
    **{name: getattr(math, name) for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh", "log10", "log2")},
    "ln": math.log,
}


def is_left_open(answer: str, gold: str) -> bool:
    """Whether an answer equal to the gold one leaves a calculation, where the gold one is a number that leaves none.

    Args:
        answer, gold: canonical texts.
    """
    wanted = read_statement(gold)
    if wanted is None or _has_variable(target := wanted[0][-1]) or not _is_worked_out(target):
        return False
    given = read_statement(answer)
    if given is None:
        # A sum, an integral or a limit; words and digits of other forms ("3 million", "2,75") leave nothing.
        return re.search(r"\\(?:sum|prod|int|lim|det|begin)(?![a-zA-Z])", answer) is not None
    if len(given[0]) > 1 and "\\approx" not in answer and not any(map(_has_variable, given[0])):
        # "2 + 3 = 5" is a calculation; "1/2 = 0.5" is one value twice.
        return not all(map(_is_integer if _is_integer(target) else _is_worked_out, given[0]))
    tree = given[0][0] if _is_named_last(given[0]) else given[0][-1]
    return not _is_integer(tree) if _is_integer(target) else not _is_worked_out(tree)


def is_unsimplified(answer: str, gold: str, problem: str) -> bool:
    """Whether a problem asks for the simplest form, and the answer has a fraction, a root or a factor that is not."""
    if not _SIMPLEST.search(problem):
        return False
    given, wanted = read_statement(answer), read_statement(gold)
    if given is None or wanted is None:
        return False
    if given[1] == wanted[1] == ["="]:
        return _content(given[0]) > _content(wanted[0])
    return any(map(_is_reducible, given[0])) and not any(map(_is_reducible, wanted[0]))


def repeats(answer: str, gold: str, problem: str) -> bool:
    """Whether an answer is a formula of the problem, written otherwise than the gold one: the question given back."""
    formula, wanted = bare(canonical(answer)), bare(canonical(gold))
    if formula == wanted or len(formula) < 3 or not _OPERATION.search(formula) or _is_numeral_text(answer):
        return False
    spaced = r"\s*".join(map(re.escape, formula))
    return re.search(rf"(?<![\w^{{]){spaced}(?![\w^])", canonical(problem)) is not None


def _is_numeral_text(text: str) -> bool:
    read = read_statement(canonical(text))
    return read is not None and len(read[0]) == 1 and _is_numeral(read[0][0])


def _is_named_last(terms: list[Tree]) -> bool:
    return len(terms) == 2 and _has_variable(terms[1]) and not _has_variable(terms[0])


def _has_variable(tree: Tree) -> bool:
    return (tree[0] == "sym" and tree[1] not in ("i", "deg")) or any(map(_has_variable, _parts(tree)))


def _parts(tree: Tree) -> list[Tree]:
    return [part for part in tree[1:] if isinstance(part, list)]


def _is_integer(tree: Tree) -> bool:
    """An integer as such: "5", "-5", "5.0", "500 %"."""
    if tree[0] in ("neg", "percent") and tree[1][0] != "neg":
        return _is_integer(tree[1])
    return tree[0] == "num" and (tree[1].endswith("/1") or _is_printed_integer(tree))


def _is_printed_integer(tree: Tree) -> bool:
    """ "2.9999999999999996", as floating-point arithmetic prints 3."""
    value = float(Fraction(tree[1]))
    return 15 <= tree[3] <= 17 and abs(value - round(value)) <= 1e-12 * abs(value)


def _is_numeral(tree: Tree) -> bool:
    """One numeral: an integer, a decimal, a fraction, a mixed number, a power of ten with its factor."""
    if tree[0] in ("neg", "percent"):
        return tree[1][0] != "neg" and _is_numeral(tree[1])
    if tree[0] in ("frac", "div"):
        parts = [_unsigned(part) for part in tree[1:]]
        return all(part[0] == "num" and part[1].endswith("/1") and part[2] is None for part in parts)
    if tree[0] == "mul" and len(tree) == 3 and tree[1][0] == "num" and tree[2][0] == "pow":
        base, exponent = tree[2][1:]
        return base[:2] == ["num", "10/1"] and _is_integer(exponent)
    return tree[0] in ("num", "mixed")


def _is_worked_out(tree: Tree) -> bool:
    if _is_numeral(tree):
        return True
    kind = tree[0]
    if kind == "fact" or (kind == "call" and tree[1] in _TO_WORK_OUT):
        return False
    value = _float(tree)
    if value is not None and _is_rational(value):
        return False
    if kind in ("add", "mul") and sum(_is_numeral(_unsigned(part)) for part in _flat(tree, kind)) > 1:
        return False
    if (kind == "add" and _has_like_terms(tree)) or (kind in ("frac", "div") and _divides(tree)):
        return False
    return all(map(_is_worked_out, _parts(tree)))


def _has_like_terms(tree: Tree) -> bool:
    """Whether two terms of a sum are multiples of each other: "\\pi + \\pi"."""
    values = [_float(term) for term in _flat(tree, "add") if not _is_numeral(_unsigned(term))]
    found = [value for value in values if value]
    return any(_is_rational(one / other) for place, one in enumerate(found) for other in found[:place])


def _divides(tree: Tree) -> bool:
    """Whether a division by an integer can be carried out: "2\\pi/2"."""
    bottom = tree[2]
    if bottom[0] != "num" or not bottom[1].endswith("/1") or bottom[1] == "1/1":
        return False
    number = int(bottom[1].removesuffix("/1"))
    factors = [part for part in _flat(_unsigned(tree[1]), "mul") if part[0] == "num" and part[1].endswith("/1")]
    return any(number and int(part[1].removesuffix("/1")) % number == 0 for part in factors)


def _flat(tree: Tree, kind: str) -> list[Tree]:
    """The terms of a sum, or the factors of a product, also of those within it."""
    if tree[0] != kind:
        return [tree]
    return [found for part in tree[1:] for found in _flat(part, kind)]


def _unsigned(tree: Tree) -> Tree:
    return tree[1] if tree[0] == "neg" else tree


def _is_rational(value: float) -> bool:
    near = Fraction(value).limit_denominator(_LARGEST_DENOMINATOR)
    return abs(value - float(near)) <= _GAP * max(1.0, abs(value))


def _float(tree: Tree) -> float | None:
    """The value of a real constant; None where it has none that a float holds."""
    try:
        value = _calculated(tree)
    except (ValueError, ArithmeticError, TypeError, KeyError):
        return None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _calculated(tree: Tree) -> float:
    kind = tree[0]
    if kind == "num":
        return float(Fraction(tree[1]))
    if kind == "const":
        return {"pi": math.pi, "e": math.e}[tree[1]]
    if kind == "call":
        arguments = [_calculated(part) for part in tree[2:]]
        if tree[1] == "root":
            return arguments[0] ** (1 / arguments[1])
        if tree[1] == "log" and len(arguments) == 2:
            return math.log(arguments[0]) / math.log(arguments[1])
        return _FLOATS[tree[1]](*arguments)
    values = [_calculated(part) for part in _parts(tree)]
    if kind == "neg":
        return -values[0]
    if kind == "pow":
        return float(values[0] ** values[1])
    if kind in ("frac", "div"):
        return values[0] / values[1]
    return {"add": math.fsum, "mul": math.prod, "mixed": math.fsum}[kind](values)


def _is_reducible(tree: Tree) -> bool:
    """Whether a fraction of integers, or a root of one, in the tree can be made simpler."""
    if tree[0] in ("frac", "div") and all(_unsigned(part)[0] == "num" for part in tree[1:]):
        top, bottom = (Fraction(_unsigned(part)[1]) for part in tree[1:])
        if top.denominator != 1 or bottom.denominator != 1 or math.gcd(int(top), int(bottom)) > 1 or bottom == 1:
            return True
    if tree[:2] == ["call", "sqrt"] and tree[2][0] == "num" and tree[2][1].endswith("/1"):
        inside = int(tree[2][1].removesuffix("/1"))
        limit = min(math.isqrt(inside), 10_000) if inside > 0 else 0
        if any(inside % (root * root) == 0 for root in range(2, limit + 1)):
            return True
    return any(map(_is_reducible, _parts(tree)))


def _content(terms: list[Tree]) -> int:
    """The common factor of the integer coefficients of an equation."""
    found = 0
    for term in (part for side in terms for part in (side[1:] if side[0] == "add" else [side])):
        term = _unsigned(term)
        factor = term[1] if term[0] == "mul" else term
        number = int(factor[1].removesuffix("/1")) if factor[0] == "num" and factor[1].endswith("/1") else 1
        found = math.gcd(found, number)
    return max(found, 1)
