"""``verigym demo``: the quickstart, wherever verigym is installed."""

import argparse
from pathlib import Path

RECIPE = "quickstart"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of ``verigym``."""
    from .cli import add_options

    parser = commands.add_parser(
        "demo",
        help="from nothing to an agent that learns, on two cores",
        description=f"Run the recipe {RECIPE}: make tasks, imitate imperfect experts, reinforce, compare. It tells "
        "first how long that takes here. Nothing is fetched.",
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the run (default: runs/quickstart, runs/quick with --quick)"
    )
    add_options(parser)
    parser.set_defaults(run=_demo)


def _demo(args: argparse.Namespace) -> int:
    from .cli import run_recipe

    args.recipe = RECIPE
    args.out = args.out or Path("runs") / ("quick" if args.quick else RECIPE)
    return run_recipe(args)
