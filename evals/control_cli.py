"""``verigym ctl``: a word to an evaluation that runs."""

import argparse
import json
from pathlib import Path
from typing import Any


def register(commands: Any) -> None:
    """Add ``ctl`` to the commands."""
    from .control import ACTIONS

    parser: argparse.ArgumentParser = commands.add_parser(
        "ctl",
        help="pause or steer an evaluation while it runs",
        description="pause: no further episode begins, those that run end. resume: go on. retry: samples that the "
        "infrastructure failed are taken again. concurrency N: so many episodes at once from now on. status: what it "
        "does. Of a verigym eval that runs with --out DIR.",
    )
    parser.add_argument("action", choices=(*ACTIONS, "status"))
    parser.add_argument("folder", type=Path, metavar="DIR", help="its --out")
    parser.add_argument("value", type=int, nargs="?", metavar="N", help="of concurrency")
    parser.add_argument("--json", action="store_true", help="print what the run says as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, and print what the run says."""
    from ..errors import ConfigError
    from .control import MOST_AT_ONCE, read_progress, request

    if (args.value is None) == (args.action == "concurrency"):
        raise ConfigError("a number is of concurrency alone: verigym ctl concurrency DIR N")
    if args.value is not None and not 1 <= args.value <= MOST_AT_ONCE:
        raise ConfigError(f"concurrency is {args.value}; it must be between 1 and {MOST_AT_ONCE}")
    if args.action == "status":
        told = read_progress(args.folder)
        if not told:
            raise ConfigError(f"no evaluation runs in {args.folder}; verigym runs lists what there is")
    else:
        told = request(args.folder, args.action, value=args.value)
    if args.json:
        print(json.dumps(told))
        return 0
    print(
        f"{told.get('state', 'ended')}: {told.get('done', 0)} of {told.get('total', 0)} samples on record, "
        f"{told.get('running', 0)} episodes running, {told.get('waiting', 0)} waiting, at most "
        f"{told.get('concurrency', 0)} at once"
    )
    return 0
