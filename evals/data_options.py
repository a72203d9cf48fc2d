"""Options that ``eval`` and ``grade`` share: which rows of a benchmark, and what to compare with."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .suites.spec import LoadOptions


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """--data and what narrows it."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE",
        help="the benchmark's file (JSON Lines, JSON, Parquet, Arrow), or a folder of such files (default: the hub)",
    )
    parser.add_argument("--release", metavar="NAME", help="of a suite that has several (livecodebench)")
    parser.add_argument("--since", metavar="DATE", help="first day of the problems (livecodebench)")
    parser.add_argument("--until", metavar="DATE", help="last day of the problems (livecodebench)")


def add_against_option(parser: argparse.ArgumentParser) -> None:
    """--against."""
    parser.add_argument(
        "--against", type=Path, metavar="DIR", help="compare with the run in DIR, task by task (McNemar)"
    )


def check_against(args: argparse.Namespace) -> None:
    """Refuse a folder that cannot be compared with, before anything runs.

    Raises:
        ConfigError: it holds no verdicts.
    """
    from ..errors import ConfigError

    if args.against is not None and not (args.against / "verdicts.jsonl").is_file():
        raise ConfigError(f"--against {args.against}: there is no verdicts.jsonl; give the --out DIR of another run")


def load_options_of(args: argparse.Namespace) -> "LoadOptions":
    """What the options say of the rows."""
    from .suites.spec import LoadOptions

    return LoadOptions(release=args.release, since=args.since, until=args.until)
