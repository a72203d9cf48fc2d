"""``verigym recipes``: what comes with the package to be run, read and changed."""

import argparse
from pathlib import Path

from ...terminal import console


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of ``verigym``."""
    parser = commands.add_parser(
        "recipes",
        help="list the recipes and examples that come along, or copy one",
        description="Recipes and examples that come with verigym. `verigym train NAME` runs a recipe as it is; a copy "
        "can be changed.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="say what there is", description="Recipes and examples, by name.")
    listing.set_defaults(run=_list)
    copying = actions.add_parser(
        "copy", help="copy one to where it can be changed", description="Copy a recipe or an example."
    )
    copying.add_argument("name", metavar="NAME", help="as `verigym recipes list` has it")
    copying.add_argument(
        "--out",
        type=Path,
        metavar="PATH",
        help="its new place (default: here, under its own name); nothing is overwritten",
    )
    copying.set_defaults(run=_copy)


def _list(args: argparse.Namespace) -> int:
    from rich.table import Table

    from .packaged import describe, packaged_examples, packaged_recipes

    for title, found in (("recipes", packaged_recipes()), ("examples", packaged_examples())):
        table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column()
        for name, path in found.items():
            table.add_row(name, describe(path))
        console().print(table, highlight=False)
    return 0


def _copy(args: argparse.Namespace) -> int:
    from .packaged import copy_packaged

    target = copy_packaged(args.name, args.out)
    print(f"wrote {target}")
    if target.suffix == ".toml":
        print(f"next: verigym train {target} --dry-run")
    return 0
