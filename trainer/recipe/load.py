"""A recipe from its file or its run; values set on the command line. What does not fit is told with its remedy."""

import difflib
import json
import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...errors import ConfigError
from .algorithms import KINDS, AsyncConfig
from .config import Settings
from .packaged import find_recipe, packaged_recipes
from .recipe import Recipe

QUICK = "quick"
MINI_SWE_AGENT = "mini-swe-agent"
KEPT = "recipe.json"
"""In the folder of a run: the recipe it began with, resolved."""


def load_recipe(path: str | Path, overrides: list[str] | None = None, *, quick: bool = False) -> Recipe:
    """Read a recipe.

    Args:
        path: of the TOML file, the bare name of a recipe that comes along ("quickstart"), or the folder of a run, whose
            own recipe it is.
        overrides: "a.b.c=VALUE", the value in TOML ("families.0.turns=4" indexes a list). They come last.
        quick: set what the recipe's table ``[quick]`` says: a key with dots each, as in ``overrides``, and its value.
    Raises:
        ConfigError: no such file, broken TOML, an unknown key (with the nearest known one), values that do not fit, or
            ``quick`` of a recipe that has no such table.
    """
    path = find_recipe(path)
    in_run = path.is_dir()
    try:
        text = (path / KEPT if in_run else path).read_text(encoding="utf-8")
        values = _set_in(json.loads(text)) if in_run else tomllib.loads(text)
    except FileNotFoundError:
        if in_run:
            raise ConfigError(f"{path} holds no {KEPT}, so it is no run; give a recipe") from None
        names = ", ".join(packaged_recipes())
        raise ConfigError(f"{path}: no such recipe; by name there are {names} (verigym recipes list)") from None
    except (ValueError, OSError) as error:  # of TOML, JSON, and their encoding
        remedy = "restore it from a copy" if in_run else "mend it"
        raise ConfigError(f"{path}: not readable as {'JSON' if in_run else 'TOML'} ({error}); {remedy}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: its {KEPT} holds no recipe; restore it from a copy")
    smaller = values.pop(QUICK, None)
    if quick:
        if not isinstance(smaller, dict):
            raise ConfigError(f"{path} has no table [{QUICK}], which says what --quick changes; leave the option out")
        for key, value in smaller.items():
            _set(values, key, value, f"[{QUICK}] {key!r}")
    for override in overrides or ():
        _override(values, override)
    _find_beside(values, path.parent)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(dict(problem)) for problem in error.errors())
        raise ConfigError(f"{path}: {problems}") from None


def _find_beside(values: dict[str, Any], folder: Path) -> None:
    """The settings of an agent that lie beside the recipe, by their whole path."""
    families = values.get("families")
    for family in families if isinstance(families, list) else ():
        agent = family.get("agent") if isinstance(family, dict) else None
        if not isinstance(agent, dict):
            continue
        name = agent.get("name")
        kind, _, config = name.partition(":") if isinstance(name, str) else ("", "", "")
        if kind == MINI_SWE_AGENT and config and (folder / config).is_file():
            family["agent"] = {**agent, "name": f"{kind}:{(folder / config).resolve()}"}


def _set_in(resolved: Any) -> Any:
    """A run's recipe without what has its default: some settings mean more where they are given."""
    if not isinstance(resolved, dict):
        return resolved
    given = dict(resolved)
    for name, field in Recipe.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        told = default.model_dump(mode="json") if isinstance(default, Settings) else default
        if isinstance(told, dict) and isinstance(given.get(name), dict):
            given[name] = {key: value for key, value in given[name].items() if key not in told or value != told[key]}
        elif name in given and given[name] == told:
            del given[name]
    return given


def _override(values: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign:
        raise ConfigError(f"--set {override!r}: KEY=VALUE is expected, such as rl.steps=10")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    _set(values, key.strip(), value, f"--set {override!r}")


def _set(values: dict[str, Any], key: str, value: Any, told: str) -> None:
    """Put a value at a place with dots; ``told`` names in an error what asked for it."""
    *parents, last = key.split(".")
    node: Any = values
    try:
        for name in parents:
            node = node[int(name)] if isinstance(node, list) else node.setdefault(name, {})
        node[int(last) if isinstance(node, list) else last] = value
    except (ValueError, IndexError, TypeError, AttributeError):
        raise ConfigError(f"{told}: there is no {key!r} in the recipe") from None


def _describe(problem: dict[str, Any]) -> str:
    place = tuple(name for name in problem["loc"] if name not in KINDS)
    where = ".".join(map(str, place)) or "recipe"
    if problem["type"] != "extra_forbidden":
        return f"{where}: {problem['msg'].removeprefix('Value error, ')}"
    known = _known_keys(problem["loc"][:-1])
    name = str(problem["loc"][-1])
    others = [other for other, kind in KINDS.items() if name in kind.model_fields]
    if others and problem["loc"][-2] in KINDS:
        return (
            f"{where} is a setting of {', '.join(others)}, not of {problem['loc'][-2]}; remove it, or change algorithm"
        )
    if name in AsyncConfig.model_fields:
        return f"{where} is a setting of rl.asynchronous, without which sampling and training take turns; move it there"
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"known keys: {', '.join(known)}"
    return f"unknown key {where!r}; {hint}"


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """Keys of the settings at a place in a recipe."""
    model: Any = Recipe
    for name in location:
        if isinstance(name, int):
            continue
        if name in KINDS:
            model = KINDS[name]
            continue
        if name not in model.model_fields:
            continue
        annotation = model.model_fields[name].annotation
        arguments = getattr(annotation, "__args__", ())
        candidates = [annotation, *arguments]
        model = next((c for c in candidates if isinstance(c, type) and issubclass(c, Settings)), model)
    return list(model.model_fields)
