"""LiveCodeBench's tests as they are published: JSON in a string, or that JSON pickled, compressed and in base64."""

import base64
import binascii
import io
import json
import pickle
import re
import zlib
from collections.abc import Mapping
from typing import Any

from ...errors import TaskError

MOST_BYTES = 1 << 30
"""Of one problem's decoded tests."""

PRELUDE_MODULES = ["string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random"]
PRELUDE_MODULES += ["statistics", "itertools", "functools", "operator", "io", "sys", "json", "builtins", "typing"]
PRELUDE = (
    "".join(f"from {name} import *\n" for name in PRELUDE_MODULES)
    + "".join(f"import {name}\n" for name in PRELUDE_MODULES if name not in ("builtins", "typing"))
    + "sys.setrecursionlimit(50000)\n"
)
"""What LiveCodeBench's checker puts before every program, in its order (later star imports win)."""


class _TextUnpickler(pickle.Unpickler):
    """Reads strings and containers only: no class, no function, nothing that runs."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}, which tests have no use for")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to something outside")


def decode_cases(text: str) -> list[Mapping[str, Any]]:
    """The test cases of ``public_test_cases`` or ``private_test_cases``: ``{"input", "output", "testtype"}`` each.

    Raises:
        TaskError: it is in neither encoding.
    """
    try:
        cases = list_of_json(text)
    except ValueError:
        cases = list_of_json(_unpack(text))
    if cases is None or not all(
        isinstance(case, dict) and isinstance(case.get("input"), str) and isinstance(case.get("output"), str)
        for case in cases
    ):
        raise TaskError("its test cases are not a list of objects with input and output")
    return cases


_SPACE = re.compile(r"[ \t\n\r]*")


def list_of_json(text: str) -> list[Any] | None:
    """``json.loads`` of a list, item by item, so that other threads come to the interpreter in between; None where it
    is another value.

    Raises:
        ValueError: it is not JSON.
    """
    decoder, items = json.JSONDecoder(), []
    place = _behind_space(text, 0)
    if text[place : place + 1] != "[":
        json.loads(text)
        return None
    place = _behind_space(text, place + 1)
    if text[place : place + 1] != "]":
        while True:
            item, place = decoder.raw_decode(text, place)
            items.append(item)
            place = _behind_space(text, place)
            if text[place : place + 1] != ",":
                break
            place = _behind_space(text, place + 1)
    if text[place : place + 1] != "]" or _behind_space(text, place + 1) != len(text):
        raise json.JSONDecodeError("expecting ',' or the end of the list", text, place)
    return items


def _behind_space(text: str, place: int) -> int:
    found = _SPACE.match(text, place)
    assert found is not None, "it matches nothing, too"
    return found.end()


def _unpack(text: str) -> str:
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(text, validate=True), MOST_BYTES)
        if inflate.unconsumed_tail:
            raise TaskError(f"its test cases are larger than {MOST_BYTES} bytes")
        unpacked = _TextUnpickler(io.BytesIO(data)).load()
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError) as error:
        raise TaskError(f"its test cases are neither JSON nor pickled, compressed JSON in base64 ({error})") from None
    if not isinstance(unpacked, str):
        raise TaskError(f"its test cases hold a pickled {type(unpacked).__name__}; text is expected")
    return unpacked


def read_tests(encoded: Mapping[str, str], *, functional: bool) -> list[dict[str, Any]]:
    """The tests of a problem, public ones first.

    Args:
        encoded: ``public`` and ``private``, as published.
        functional: whether a function is called: each line of an input is then one argument, as JSON.
    Returns:
        ``{"args", "expected"}`` each for a function, else ``{"input", "output"}``.
    Raises:
        TaskError: they cannot be read.
    """
    cases = [case for part in ("public", "private") if encoded.get(part) for case in decode_cases(encoded[part])]
    if not functional:
        return [{"input": case["input"], "output": case["output"]} for case in cases]
    try:
        return [
            {
                "args": [json.loads(line) for line in case["input"].split("\n")],
                "expected": json.loads(case["output"]),
            }
            for case in cases
        ]
    except ValueError as error:
        raise TaskError(f"a test of a function is not JSON ({error})") from None
