"""Values near a value: what a test gives, otherwise. Values are the source of Python expressions of built-in names."""

import ast
import builtins
import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

from .noting import called

Hints = Collection[int | str]
"""Numbers and texts of the code under test: at them it may turn."""

MOST_LENGTH = 300
"""Of a text that is made as long as a hint says."""
CALLABLES = (
    "lambda *given, **named: given[0] if given else None",
    "lambda *given, **named: given",
    "lambda *given, **named: False",
    "len",
    "str",
    "bool",
    "__import__('functools').partial(sorted, reverse=True)",
    "__import__('operator').itemgetter(0)",
)
ITERATORS = ("iter([1, 2, 3, 4, 5])", "iter('abcba')", "iter([])", "iter([3, 1, 2, 1])")
ANYTHING = (
    "''", "'abc'", "'a b  c\\n d'", "0", "1", "2", "3", "-1", "2.5", "None", "True", "[]", "[1, 2, 3]",
    "['a', 'b', 'a']", "__import__('re').compile('(a)|b')", "__import__('datetime').date(2024, 2, 29)",
    "{}", "{'a': 1, 'b': 2}", "(1, 2)", "b'ab'", *ITERATORS[:2], *CALLABLES[:4],
)  # fmt: skip
_DIGITS = re.compile(r"[0-9]{1,9}")
_WORD = re.compile(r"[A-Za-z]+|[0-9]+|[^\w\s]")
_PLAIN = (bool, int, float, str, bytes, type(None), list, tuple, dict, set)


def varied(source: str, hints: Hints = ()) -> list[str]:
    """Sources near one, each once, without it; [] where nothing near is known."""
    return list(_varied(source, tuple(hints)))


@lru_cache(maxsize=4096)
def _varied(source: str, hints: tuple[int | str, ...]) -> list[str]:
    try:
        value = ast.literal_eval(source)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return [one for one in _near_expression(source, hints) if one != source]
    found = [repr(one) for one in near(value) if type(one) in _PLAIN]
    found += [repr(one) for one in hinted(value, hints)]
    found += _of_other_kinds(value)
    return [one for one in dict.fromkeys(found) if one != source]


def near(value: Any) -> list[Any]:
    """Values near one of the same type: neighbours, the other sign, zero, the empty one, a part of it, more of it."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [one for one in (value + 1, value - 1, -value, 0, 2 * value + 1) if one != value]
    if isinstance(value, float):
        return [one for one in (-value, value / 2, value + 1.0, 0.0) if one != value]
    if isinstance(value, str):
        return [one for one in dict.fromkeys(_near_text(value)) if one != value]
    if isinstance(value, bytes):
        return [one for one in dict.fromkeys((b"", value[:-1], value[::-1], value + value)) if one != value]
    if isinstance(value, list | tuple):
        return [one for one in _near_sequence(value) if one != value]
    if isinstance(value, dict):
        return [one for one in _near_mapping(value) if one != value]
    return []


def _near_text(value: str) -> Iterator[str]:
    yield from ("", f"{value}{value[-1:] or 'a'}", value[::-1], value[:-1], value.upper(), f" {value}")
    yield value.replace(" ", "", 1)
    for one in _DIGITS.finditer(value):
        yield f"{value[: one.start()]}{int(one[0]) + 1}{value[one.end() :]}"
    half = len(value) // 2
    yield from (value + value, value.swapcase(), value.replace(value[:1], "", 1))
    if any(mark in value for mark in "\\\\()[]*+?^$|"):
        yield from near_pattern(value)
    yield from (f"{value[:half]}  {value[half:]}", f"{value[:half]}\n\t{value[half:]}", f"{value} ", f"{value}1")


def _near_sequence(value: list[Any] | tuple[Any, ...]) -> Iterator[Any]:
    kind = type(value)
    items = list(value)
    for one in ([], items[1:], items[:-1], items[::-1], items + items, [*items, None], items[:1] + items, [value]):
        yield kind(one)
    for position, item in list(enumerate(items))[:4]:
        for other in near(item)[:3]:
            yield kind([*items[:position], other, *items[position + 1 :]])


def _near_mapping(value: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    yield {}
    for key in list(value)[:4]:
        yield {name: item for name, item in value.items() if name != key}
        for other in (*near(value[key])[:3], None):
            yield {**value, key: other}
    for key in list(value)[:1]:
        for other in near(key)[:2]:
            if isinstance(other, str | int | float | bytes):
                yield {**value, other: value[key]}
    yield dict(reversed(value.items()))


def hinted(value: Any, hints: Hints) -> list[Any]:
    """Hints of a value's own type; of a number its neighbours too, of a text what both make together, one in the place
    of another that stands in it, and texts as long as a number says."""
    if type(value) is int:
        numbers = {one + step for one in hints if type(one) is int for step in (-1, 0, 1)}
        return sorted(numbers - {value, *near(value)})
    if type(value) is not str:
        return []
    texts = [one for one in hints if type(one) is str and one]
    found = [*texts, *(f"{value}{one}" for one in texts), *(f"{one}{value}" for one in texts)]
    for word in _WORD.finditer(value):
        if word[0] in texts and word[0] != value:
            found += [f"{value[: word.start()]}{one}{value[word.end() :]}" for one in texts]
    found += [f"{value[: len(value) // 2]}{one}{value[len(value) // 2 :]}" for one in texts]
    for word in list(dict.fromkeys(_WORD.findall(value)))[:3]:
        found += [value.replace(word, one, 1) for one in texts]
    for number in hints:
        if type(number) is int and 0 < number < MOST_LENGTH:
            found += [((value or "a") * length)[:length] for length in (number - 1, number, number + 1) if length]
    return [one for one in dict.fromkeys(found) if one != value]


def _of_other_kinds(value: Any) -> list[str]:
    """What may stand where a value stands: an iterator of the same, nothing, another kind of thing."""
    if isinstance(value, list | tuple):
        other = tuple(value) if isinstance(value, list) else list(value)
        return [f"iter({value!r})", repr(other), "None", "0", "'ab'"]
    if isinstance(value, dict):
        return ["None", repr(list(value.items())), repr(list(value))]
    if isinstance(value, str):
        return ["None", repr(list(value)), "0", repr(value.encode())]
    if value is None:
        return ["0", "1", "3", "''", "'a'", "[]", "True", *CALLABLES[:1]]
    if isinstance(value, int | float):
        return ["None", repr(str(value)), "[]", *(["1", "2", "3", "10", "100"] if type(value) is int else [])]
    return ["None"]


def _near_expression(source: str, hints: Hints) -> Iterator[str]:
    if "\n" in source:
        return
    try:
        node = ast.parse(source, mode="eval").body
    except SyntaxError:
        return
    is_partial = source.startswith(("__import__('functools')", "__import__('operator')"))
    is_name = isinstance(node, ast.Name) and callable(getattr(builtins, node.id, None))
    if isinstance(node, ast.Lambda) or is_name or is_partial:
        yield from (*CALLABLES, "int", "list", "None")
        return
    if isinstance(node, ast.Call) and len(node.args) == 1 and not node.keywords and isinstance(node.func, ast.Name):
        yield ast.unparse(node.args[0])
    yield from _inner_otherwise(source, node, hints)
    yield "None"


def _inner_otherwise(source: str, node: ast.expr, hints: Hints) -> Iterator[str]:
    """An expression with one of its written-out values otherwise; of a pattern, the pattern."""
    data = source.encode()
    for call in (one for one in ast.walk(node) if isinstance(one, ast.Call)):
        if getattr(call.func, "id", "") == "__import__":
            continue
        is_made = called(call) == "made"  # of a class by its attributes: these alone are varied
        states = [one.values for one in call.args if isinstance(one, ast.Dict)]
        for value in (one for values in (*([] if is_made else [call.args]), *states) for one in values):
            others = varied(ast.unparse(value), hints)
            if called(call) == "compile" and isinstance(value, ast.Constant) and isinstance(value.value, str):
                others = [*map(repr, near_pattern(value.value)), *others]
            assert value.end_col_offset is not None
            for other in others:
                yield (data[: value.col_offset] + other.encode() + data[value.end_col_offset :]).decode()


def near_pattern(value: str) -> Iterator[str]:
    """Regular expressions near one: with other groups."""
    yield from (f"({value})", f"({value})({value})?", f"(?P<a>{value})", f"(?P<a>{value})({value})?", value.lower())
    yield from (value.replace("(?P<", "(?P<x"), re.sub(r"\(\?P<\w+>", "(", value), re.sub(r"\((?!\?)", "(?:", value))
    yield from (f"(?P<a>{value})(?P<b>{value})?", f"{value}|x", f"({value})|(x)", f"{value}$", f"^{value}")


def is_free(node: ast.expr) -> bool:
    """Whether an expression uses nothing but built-in names and its own: it means the same anywhere, and is short."""
    bound = {one.arg for one in ast.walk(node) if isinstance(one, ast.arg)}
    bound |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
    stranger = any(isinstance(one, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr) for one in ast.walk(node))
    spoken = names & {
        "open",
        "input",
        "print",
        "exec",
        "eval",
        "exit",
        "quit",
        "breakpoint",
        "globals",
        "locals",
        "vars",
    }
    free = all(name in bound or hasattr(builtins, name) for name in names)
    return free and not spoken and not stranger and len(ast.unparse(node)) < MOST_LENGTH
