"""``verigym train``. Heavy imports wait until it runs."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ConfigError

if TYPE_CHECKING:
    from ..ranks.launch import Launch
    from ..recipe.recipe import Recipe


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of ``verigym``."""
    parser = commands.add_parser(
        "train",
        help="train a model as a recipe says, and report pass@1 before and after",
        description="Run a recipe: make tasks, play demonstrations, imitate, reinforce, evaluate, report. Over several "
        "processes: torchrun --nproc-per-node N -m verigym train RECIPE.",
    )
    parser.add_argument(
        "recipe",
        help="a TOML recipe, the name of one that comes along (verigym recipes list), such as quickstart, or with "
        "--resume the folder of the run",
    )
    parser.add_argument("--out", type=Path, help="folder of the run (default: runs/NAME)")
    add_options(parser)
    parser.set_defaults(run=run_recipe)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What ``train`` and ``demo`` take beside the recipe and its folder."""
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE", help="change a value of the recipe"
    )
    parser.add_argument("--quick", action="store_true", help="with the smaller values of the recipe's table [quick]")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check the recipe, its layout and the number of processes, and start none",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on the Ray cluster at ADDRESS (HOST:PORT, or auto), as the recipe's [cluster] says; local: on this "
        "machine",
    )
    parser.add_argument("--ranks", type=int, metavar="N", help="with --dry-run: as if N processes had been started")


def run_recipe(args: argparse.Namespace) -> int:
    """Check the recipe, and run it or say what it would do."""
    from ..loops.trackers import check_tracker
    from ..ranks.launch import Launch
    from ..recipe.context import check_context
    from ..recipe.layouts import check_layout, is_sharded, layout_of
    from ..recipe.load import load_recipe

    if args.ranks is not None and not args.dry_run:
        raise ConfigError("--ranks says what --dry-run should suppose; to start N processes use torchrun")
    launch = Launch.from_environment()
    try:
        recipe = load_recipe(args.recipe, args.overrides, quick=args.quick)
        num_ranks = launch.world if args.ranks is None else args.ranks
        if args.ray is not None:
            num_ranks = _cluster_ranks(args, recipe, launch)
        layout = layout_of(recipe.layout, num_ranks)
        check_tracker(None if recipe.tracker == "none" else recipe.tracker)
        if is_sharded(recipe, num_ranks) or args.ray is not None:
            check_layout(recipe, layout)
        check_context(recipe)
    except ConfigError:
        if launch.rank > 0:
            return 2  # rank 0 says it
        raise
    if args.dry_run:
        from ..recipe.dry_run import dry_run

        return dry_run(_typed(args), recipe, layout, ray=args.ray) if launch.rank == 0 else 0
    folder = Path(args.recipe) if Path(args.recipe).is_dir() else Path("runs") / recipe.name
    out = args.out or folder
    if args.ray is not None:
        from ..cluster.driver import run_on_cluster
        from .on_cluster import control

        return run_on_cluster(args.ray, recipe, layout, out, control, resume=args.resume)
    return _run(recipe, out, args.resume, launch)


def _cluster_ranks(args: argparse.Namespace, recipe: "Recipe", launch: "Launch") -> int:
    """Ranks of the recipe's cluster. Raises ConfigError where that and the command disagree."""
    from ..cluster.bundles import cluster_of
    from ..cluster.connect import import_ray

    if launch.world > 1:
        raise ConfigError("--ray starts the ranks itself; leave torchrun or accelerate out")
    if args.ranks is not None:
        raise ConfigError("with --ray the recipe says how many ranks there are; set cluster.ranks")
    import_ray()
    return cluster_of(recipe).ranks


def _typed(args: argparse.Namespace) -> str:
    """The recipe and what changes it, as a shell takes them."""
    changes = [word for override in args.overrides for word in ("--set", override)]
    return shlex.join([args.recipe, *changes, *(["--quick"] if args.quick else [])])


def _run(recipe: "Recipe", out: Path, resume: bool, launch: "Launch") -> int:
    from ..recipe.layouts import is_sharded, layout_of
    from .train import train

    if not is_sharded(recipe, launch.world):
        return train(recipe, out, resume=resume)
    from ..ranks.run import run_ranks

    layout = layout_of(recipe.layout, launch.world)
    return run_ranks(launch, layout, lambda team: train(recipe, out, resume=resume, team=team), threads=recipe.threads)
