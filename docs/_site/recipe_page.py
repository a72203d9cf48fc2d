"""The reference of recipes, from the settings' own classes: keys, types, defaults, bounds and docstrings."""

import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic_core import PydanticUndefined

from verigym.trainer.recipe.algorithms import ALGORITHMS
from verigym.trainer.recipe.config import Settings
from verigym.trainer.recipe.recipe import Recipe
from verigym.trainer.recipe.stages import DistillStage, RLStage

INTRODUCTION = """# Recipes: every setting

A recipe is a TOML file. `verigym train RECIPE` runs it, `--set rl.steps=10` changes a value, `--dry-run` says what
would run. A key that is not here is refused with the nearest one; a combination that cannot work is refused with
the remedy. Tables are nested by dots: `[rl.train]` is `rl.train`; `[[families]]` is one of a list. `false` leaves a
stage out. A table `[quick]` holds keys with dots and the values that `--quick` sets.

This page is made from the settings' classes when the documentation is built."""


def recipe_page() -> str:
    """The page in Markdown: a section for each table of a recipe."""
    parts = [INTRODUCTION]
    for name, kind in sections():
        parts.append(f"## {_title(name)}\n\n{_text(kind.__doc__)}\n\n{_table(kind, name)}")
    return "\n\n".join(parts) + "\n"


def sections() -> Iterator[tuple[str, type[Settings]]]:
    """(place in a recipe, its settings), outer ones first. Each class is described once, where it first stands."""
    waiting: list[tuple[str, type[Settings]]] = [("", Recipe)]
    seen: set[type[Settings]] = set()
    while waiting:
        name, kind = waiting.pop(0)
        if kind in seen:
            continue
        seen.add(kind)
        yield name, kind
        inner = []
        for key, field in kind.model_fields.items():
            for one in _classes(field.annotation):
                place = f"{name.partition(' algorithm=')[0]}.{key}".lstrip(".")
                inner.append((f"{place} algorithm={_algorithm(one)}" if one in ALGORITHMS.values() else place, one))
        waiting = inner + waiting


def _algorithm(kind: type[Settings]) -> str:
    return next(name for name, one in ALGORITHMS.items() if one is kind)


def _classes(annotation: Any) -> Iterator[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for argument in get_args(annotation):
        yield from _classes(argument)


def _title(name: str) -> str:
    if not name:
        return "The recipe itself"
    place, _, algorithm = name.partition(" algorithm=")
    listed = place == "families" or place.endswith("sources")
    shown = f"`[[{place}]]`" if listed else f"`[{place}]`"
    return f'{shown} with `algorithm = "{algorithm}"`' if algorithm else shown


def _table(kind: type[Settings], name: str) -> str:
    hidden, told = set(), ""
    if kind is DistillStage:
        base, told = RLStage, "in `[rl]`"
    elif kind in ALGORITHMS.values() and kind is not ALGORITHMS["grpo"]:
        base, told = ALGORITHMS["grpo"], 'with `algorithm = "grpo"`'
    if told:
        known = base.model_fields
        hidden = {key for key, field in kind.model_fields.items() if key in known and _same(field, known[key])}
    rows = [
        f"| `{key}` | {_type(field.annotation)} | {_default(field)} | {_text(field.description)}{_bounds(field)} |"
        for key, field in kind.model_fields.items()
        if key not in hidden
    ]
    more = f"\n\nEverything else is as {told}." if hidden else ""
    return "\n".join(["| key | type | default | what it is |", "|---|---|---|---|", *rows]) + more


def _same(one: Any, other: Any) -> bool:
    return (one.annotation, _default(one), one.description) == (other.annotation, _default(other), other.description)


def _type(annotation: Any) -> str:
    """A type as people say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f'`"{value}"`' for value in arguments)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in (typing.Union, types.UnionType):
        kinds = [one for one in arguments if one is not type(None)]
        if all(list(_classes(one)) for one in kinds):
            return "table"
        return " or ".join(_type(one) for one in kinds)
    if origin is dict:
        return f"table of {_type(arguments[1])}"
    if origin in (list, tuple):
        kinds = [one for one in arguments if one is not ...]
        same = origin is list or ... in arguments
        return f"list of {_type(kinds[0])}" if same else f"{len(kinds)} of {_type(kinds[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return "table"
    plain = {str: "text", int: "integer", float: "number", bool: "`true` or `false`", Path: "path", Any: "any value"}
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is PydanticUndefined:
        value = field.default_factory()
    if isinstance(value, Settings):
        return "its defaults"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, dict):
        return f"`{{ {', '.join(f'{key} = {one}' for key, one in value.items())} }}`" if value else "`{}`"
    if isinstance(value, (list, tuple)):
        return f"`{list(value)!r}`".replace("'", '"')
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _bounds(field: Any) -> str:
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "at least this many:"}
    found = [
        f"{words} {getattr(one, sign):g}"
        for one in field.metadata
        for sign, words in signs.items()
        if getattr(one, sign, None) is not None
    ]
    return f" *({', '.join(found)})*" if found else ""


def _text(text: str | None) -> str:
    """A docstring in a cell of a table."""
    text = " ".join(inspect.cleandoc(text or "").split())
    return re.sub(r"``(.+?)``", r"`\1`", text).replace("|", "\\|").replace("<", "&lt;")
