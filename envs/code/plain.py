"""Plain data as JSON with exact types: all that ever crosses from a program to what judges it.

Both sides use this file, inside the sandbox and outside. What a program returns is taken apart by the slots of the
built-in types, never by methods the program may have written, so an object that only behaves like a value becomes the
value it holds, or is refused. Standard library only.
"""

import builtins
import collections
import datetime
import decimal
import fractions
import json
from collections.abc import Callable
from typing import Any

MAX_DEPTH = 200
"""Levels of containers that are taken; deeper data is refused rather than overflowing a stack."""

TEXT_ERROR = "not plain data"

_MAPPINGS: dict[str, type] = {"Counter": collections.Counter, "OrderedDict": collections.OrderedDict}
_DATES = {kind.__name__: kind for kind in (datetime.datetime, datetime.date, datetime.time)}

Refer = Callable[[Any], Any]
"""Gives the JSON that stands for an object which is no plain data, or raises TypeError."""


def refuse(value: Any) -> Any:
    kind = type(value)
    raise TypeError(f"a {kind.__module__}.{kind.__qualname__} is {TEXT_ERROR}")


def encode(value: Any, refer: Refer = refuse, depth: int = 0) -> Any:
    """The JSON of a value.

    Raises:
        TypeError: it is, or holds, something that is no plain data, and ``refer`` takes none.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -(1 << 62) < value < 1 << 62 else {"int": hex(value)}
    if kind is float:
        return {"float": repr(value)}
    if depth > MAX_DEPTH:
        raise TypeError(f"nested deeper than {MAX_DEPTH} levels: {TEXT_ERROR}")
    if kind is list:
        return [encode(one, refer, depth + 1) for one in value]
    if kind is tuple:
        return {"tuple": [encode(one, refer, depth + 1) for one in value]}
    if kind is dict:
        return {"dict": _pairs(value, refer, depth)}
    return _encode_rare(value, kind, refer, depth)


def _pairs(value: dict, refer: Refer, depth: int) -> list:
    return [[encode(key, refer, depth + 1), encode(one, refer, depth + 1)] for key, one in dict.items(value)]


def _encode_rare(value: Any, kind: type, refer: Refer, depth: int) -> Any:
    if kind is set or kind is frozenset:
        return {kind.__name__: [encode(one, refer, depth + 1) for one in value]}
    if kind is complex:
        return {"complex": [repr(value.real), repr(value.imag)]}
    if kind is bytes or kind is bytearray:
        return {kind.__name__: value.hex()}
    if kind is range:
        return {"range": [encode(one) for one in (value.start, value.stop, value.step)]}
    if kind is decimal.Decimal:
        return {"Decimal": str(value)}
    if kind is fractions.Fraction:
        return {"Fraction": [hex(value.numerator), hex(value.denominator)]}
    if kind is collections.deque:
        return {"deque": [encode(one, refer, depth + 1) for one in value]}
    if kind is collections.defaultdict:
        return {"dict": _pairs(value, refer, depth)}
    if _MAPPINGS.get(kind.__name__) is kind:
        return {kind.__name__: _pairs(value, refer, depth)}
    if _DATES.get(kind.__name__) is kind and getattr(value, "tzinfo", None) is None and not getattr(value, "fold", 0):
        return {kind.__name__: value.isoformat()}
    if kind is type and vars(builtins).get(value.__name__) is value:
        return {"type": value.__name__}
    return _encode_derived(value, kind, refer, depth)


def _encode_derived(value: Any, kind: type, refer: Refer, depth: int) -> Any:
    """An instance of a class derived from a built-in: the built-in value it holds."""
    bases = kind.__mro__
    for base, plain in _BARE.items():
        if base in bases:
            return encode(plain(value), refer, depth)
    if kind.__module__ == "numpy" and kind.__name__ != "ndarray" and hasattr(value, "item"):
        plain = value.item()
        if type(plain) in (bool, int, float, complex, str):
            return encode(plain, refer, depth)
    return refer(value)


_BARE: dict[type, Callable[[Any], Any]] = {
    int: int.__pos__,
    float: float.__pos__,
    str: str.__str__,
    list: lambda value: [*list.__iter__(value)],
    tuple: lambda value: (*tuple.__iter__(value),),
    dict: lambda value: dict(dict.items(value)),
    set: lambda value: {*set.__iter__(value)},
    frozenset: lambda value: frozenset({*frozenset.__iter__(value)}),
}


def decode(value: Any, resolve: Callable[[int], Any] | None = None) -> Any:
    """The value of what ``encode`` wrote.

    Args:
        resolve: gives what ``{"ref": number}`` stands for; None: nothing may.
    Raises:
        ValueError, TypeError: not of that form.
    """
    if isinstance(value, list):
        return [decode(one, resolve) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "int":
        return int(content, 16)
    if kind == "float":
        return float(content)
    if kind == "tuple":
        return tuple([decode(one, resolve) for one in content])
    if kind == "dict":
        return {decode(key, resolve): decode(one, resolve) for key, one in content}
    if kind == "ref" and resolve is not None:
        return resolve(int(content))
    return _decode_rare(kind, content, resolve)


def _decode_rare(kind: str, content: Any, resolve: Callable[[int], Any] | None) -> Any:
    if kind in ("set", "frozenset", "deque"):
        make = {"set": set, "frozenset": frozenset, "deque": collections.deque}[kind]
        return make([decode(one, resolve) for one in content])
    if kind in _MAPPINGS:
        return _MAPPINGS[kind]({decode(key, resolve): decode(one, resolve) for key, one in content})
    if kind == "complex":
        return complex(float(content[0]), float(content[1]))
    if kind in ("bytes", "bytearray"):
        return {"bytes": bytes, "bytearray": bytearray}[kind].fromhex(content)
    if kind == "range":
        return range(*[decode(one) for one in content])
    if kind == "Decimal":
        return decimal.Decimal(content)
    if kind == "Fraction":
        return fractions.Fraction(int(content[0], 16), int(content[1], 16))
    if kind in _DATES:
        return _DATES[kind].fromisoformat(content)
    if kind == "type":
        found = vars(builtins)[content]
        if isinstance(found, type):
            return found
    raise ValueError(f"unknown kind of value {kind!r}")


VALUE = '{"value":'
"""How a line begins that holds a value."""


def dumps(value: Any) -> bytes:
    """One line of ASCII JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def loads(data: bytes | bytearray | str) -> Any:
    return json.loads(data)
