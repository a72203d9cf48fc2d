"""Recipes and examples that come with the package: beside it in a checkout, inside it in a wheel."""

import ast
import shutil
from pathlib import Path

from ...errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[2]
RECIPES, EXAMPLES = PACKAGE / "recipes", PACKAGE / "examples"


def packaged_recipes() -> dict[str, Path]:
    """Name -> TOML file of each recipe that comes along, in the order of their names."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}


def packaged_examples() -> dict[str, Path]:
    """Name -> file or folder of each example that comes along."""
    return {path.stem: path for path in sorted(EXAMPLES.iterdir()) if path.suffix == ".py" or any(path.glob("*.toml"))}


def find_recipe(given: str | Path) -> Path:
    """The file that a command was given: a path, or the bare name of a recipe that comes along.

    A file of that name in the current folder comes first. What is neither is returned as it is, for ``load_recipe`` to
    refuse.
    """
    path = Path(given)
    if path.is_file() or path.name != str(given):
        return path
    return packaged_recipes().get(str(given), path)


def describe(path: Path) -> str:
    """What a recipe or example says of itself: its first comment line, its docstring's first line."""
    if path.is_dir():
        path = next(iter(sorted(path.glob("*.py"))))
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        first = text.split("\n", 1)[0]
        return first.removeprefix("#").strip() if first.startswith("#") else ""
    return (ast.get_docstring(ast.parse(text)) or "a program to trace").split("\n", 1)[0]


def copy_packaged(name: str, out: Path | None = None) -> Path:
    """Copy a recipe or an example to where it can be edited, with its agent's settings where it has any.

    Args:
        name: as ``packaged_recipes`` or ``packaged_examples`` has it.
        out: the new file or folder, or a folder to put it in; None: the current folder, under its own name.
    Returns:
        What was written.
    Raises:
        ConfigError: nothing of that name comes along, or something stands at its place.
    """
    known = {**packaged_examples(), **packaged_recipes()}
    if name not in known:
        raise ConfigError(f"no recipe or example is called {name!r}; there are {', '.join(sorted(known))}")
    source, target = known[name], out or Path()
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise ConfigError(f"{target} is there already; say another place with --out, or remove it")
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
        return target
    shutil.copyfile(source, target)
    for beside in _settings_of(source):
        if not (target.parent / beside.name).exists():
            shutil.copyfile(beside, target.parent / beside.name)
    return target


def _settings_of(recipe: Path) -> list[Path]:
    """What lies beside a recipe under its own name: settings of the agent that acts in it."""
    return [path for path in sorted(recipe.parent.glob(f"{recipe.stem}.*")) if path != recipe]
