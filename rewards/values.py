"""What a program printed or returned against what was expected. Pure comparisons of plain data.

What was printed and returned is a program's, what is expected the benchmark's: so the cost is bounded by what is
expected wherever it can be, and whatever a comparison raises (a signaling NaN does) is "not the same" to its caller.
Standard library only: ``envs/code/compare_worker.py`` loads this file by its path.
"""

import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any

_REL_TOL = 1e-9
_MOST_DIGITS = 1000
"""Of a decimal that may differ in its last digits; a longer one must be the same text."""


def compare_output(printed: str, expected: str) -> bool:
    """Whether two outputs are the same tokens, line by line; spaces around tokens and empty lines at the end are
    free. Numbers written as decimals may differ in the last of nine digits."""
    if printed == expected:
        return True
    left, right = printed.rstrip(), expected.rstrip()
    if left.count("\n") != right.count("\n"):
        return False
    return all(map(_same_tokens, left.split("\n"), right.split("\n")))


def _same_tokens(left: str, right: str) -> bool:
    if left == right:
        return True
    wanted = right.split()
    found = left.split(None, len(wanted))
    return len(found) == len(wanted) and all(map(_same_token, found, wanted))


def compare_lines(printed: str, expected: str) -> bool:
    """LiveCodeBench's comparison of outputs: as many lines once both ends are stripped, and each line, stripped, the
    same text or the same sequence of decimal numbers, exactly.

    Source: LiveCodeBench, lcb_runner/evaluation/testing_util.py.
    """
    left, right = printed.strip(), expected.strip()
    if left == right:
        return True
    return left.count("\n") == right.count("\n") and all(map(_same_line, left.split("\n"), right.split("\n")))


def _same_line(left: str, right: str) -> bool:
    left, right = left.strip(), right.strip()
    if left == right:
        return True
    try:
        wanted = [Decimal(token) for token in right.split()]
        return wanted == [Decimal(token) for token in left.split(None, len(wanted))]
    except InvalidOperation:  # no number, or one that signals where it is compared
        return False


def compare_returned(value: Any, expected: Any) -> bool:
    """LiveCodeBench's comparison of what a function returned with plain JSON data: equal as Python has it, a tuple
    standing for a list on the outermost level; but True is not 1.

    Source: as ``compare_lines``.
    """
    return plain_equal(list(value) if type(value) is tuple else value, expected)


def plain_equal(left: Any, right: Any) -> bool:
    """Python's equality of plain data, with bool apart from numbers."""
    kind, other = type(left), type(right)
    if (kind is bool) is not (other is bool):
        return False
    if kind is other and kind in (list, tuple):
        return len(left) == len(right) and all(map(plain_equal, left, right))
    if kind is other is dict:
        return left.keys() == right.keys() and all(plain_equal(one, right[key]) for key, one in left.items())
    if kind in (int, float) and other in (int, float):
        return left == right
    return kind is other and left == right


def compare_with_reference(value: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """EvalPlus' comparison of plain data: equal, or, for floats and sequences of floats, close.

    Args:
        tolerance: absolute, of the task; floats have 1e-6 where it is 0. The relative one is 1e-7.
    Source: evalplus, evalplus/eval/__init__.py.
    """
    try:
        if value == expected:
            return True
    except (RecursionError, TypeError):
        return False
    if tolerance == 0.0 and _all_floats(expected):
        tolerance = 1e-6
    if tolerance == 0.0:
        return False
    return _all_close(value, expected, tolerance)


def _all_floats(value: Any) -> bool:
    if type(value) in (list, tuple):
        return bool(value) and all(type(one) is float for one in value)
    return type(value) is float


def _all_close(left: Any, right: Any, tolerance: float) -> bool:
    if type(right) in (list, tuple):
        return (
            type(left) in (list, tuple)
            and len(left) == len(right)
            and all(_all_close(one, other, tolerance) for one, other in zip(left, right))
        )
    if type(left) not in (int, float, bool) or type(right) not in (int, float, bool):
        return False
    try:
        return abs(left - right) <= tolerance + 1e-7 * abs(right) or left == right
    except OverflowError:
        return False


def compare_value(value: Any, expected: Any) -> bool:
    """Whether two values of plain JSON data are the same: ``True`` is not 1 and "1" is not 1; an int equals the float
    of the same number; tuples count as lists; floats may differ in the last of nine digits. Anything that is not
    plain data is never equal."""
    kind, other = type(value), type(expected)
    if kind in (int, float) and other in (int, float):
        if kind is other is int:
            return value == expected
        return _close(value, expected)
    if kind in (list, tuple) and other in (list, tuple):
        return len(value) == len(expected) and all(map(compare_value, value, expected))
    if kind is not other:
        return False
    if kind is dict:
        if len(value) != len(expected):
            return False
        # By type too, because 1, 1.0 and True are one key of a dictionary.
        right = {(type(key), key): one for key, one in expected.items()}
        return all(
            (type(key), key) in right and compare_value(one, right[type(key), key]) for key, one in value.items()
        )
    return value == expected if kind in (str, bool, type(None)) else False


def _same_token(left: str, right: str) -> bool:
    if left == right:
        return True
    # Only decimals: an integer of many digits must be exact, and "1e5" or "nan" are text.
    if len(left) > _MOST_DIGITS or not all(re.fullmatch(r"[+-]?\d+\.\d+", token) for token in (left, right)):
        return False
    return _close(float(left), float(right))


def _close(left: float, right: float) -> bool:
    try:
        return left == right or math.isclose(left, right, rel_tol=_REL_TOL, abs_tol=1e-12)
    except OverflowError:
        return False
