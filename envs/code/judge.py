"""Whether a report says what it must: the one function, used here for small reports and in a process of its own for
large ones. Standard library only."""

from typing import Any

PRINTED = {"printed": "compare_output", "lines": "compare_lines"}
RETURNED = {"value": "compare_value", "returned": "compare_returned"}
REPORTED = {"reference": "compare_with_reference", "equal": "plain_equal"}
"""Kind -> name in ``rewards.values``: of printed text against text, of a reported value against data, and of one
reported value against another."""


def agree(plain: Any, values: Any, kind: str, report: str, expected: Any, tolerance: float) -> bool:
    """
    Args:
        plain: the module of that name. values: ``rewards.values``.
        kind: a key of one of the three tables.
        report: what was printed, or the line that a program's process wrote of a value.
        expected: text, data, or another such line.
        tolerance: of "reference".
    Returns:
        False also where the report is no plain data, or the comparison raises.
    """
    try:
        if kind in PRINTED:
            return bool(getattr(values, PRINTED[kind])(report, expected))
        value = value_of(plain, report)
        if kind in RETURNED:
            return bool(getattr(values, RETURNED[kind])(value, expected))
        more = (tolerance,) if kind == "reference" else ()
        return bool(getattr(values, REPORTED[kind])(value, value_of(plain, expected), *more))
    except Exception:  # whatever a program can make of itself: a signaling NaN, data too deep, a fraction over 0
        return False


def value_of(plain: Any, report: str) -> Any:
    """The value of a line. Raises where it holds none; whatever it raises, the line is no plain data."""
    return plain.decode(plain.loads(report)["value"])
