"""Options that ``eval`` and ``grade`` share: which rows of a benchmark, and what to compare with."""

import argparse
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .suites.spec import LoadOptions, Suite

NETWORKED = ("swe", "harbor")
"""Families whose environments take an allow-list."""


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


def add_ray_option(parser: argparse.ArgumentParser, verb: str) -> None:
    """--ray.

    Args:
        verb: what is done there.
    """
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help=f"{verb} on the machines of the Ray cluster at ADDRESS (HOST:PORT, or auto) that offer the resource "
        '"sandbox"; local: on this one',
    )


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


def add_allow_host_option(parser: argparse.ArgumentParser) -> None:
    """--allow-host."""
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="HOST",
        help="a host that tasks may reach which ask for it or for the whole network (NAME, NAME:PORT, *.NAME); may be "
        "repeated (default: none)",
    )


def network_of(args: argparse.Namespace) -> "dict[str, Any]":
    """``--allow-host`` as an environment takes it; nothing where it was not given.

    Raises:
        ConfigError: one is no entry of an allow-list.
    """
    from ..envs.sandbox.network.policy import NetworkPolicy

    if not args.allow_host:
        return {}
    network = {"hosts": args.allow_host}
    NetworkPolicy.parse(network)
    return {"network": network}


def check_families(args: argparse.Namespace, families: Set[str]) -> None:
    """Raises ConfigError where an option is of a kind of tasks that the suite has none of."""
    from ..errors import ConfigError

    if args.untrusted is not None and "swe" not in families:
        raise ConfigError(f"--untrusted is of patches, and {args.suite} has no task of the family swe; leave it out")
    if args.allow_host and families.isdisjoint(NETWORKED):
        raise ConfigError(f"--allow-host is of tasks that may have a network, and {args.suite} has none; leave it out")


def checked_test_timeout(args: argparse.Namespace) -> "dict[str, float]":
    """``--test-timeout`` as an environment takes it; nothing where it was not given.

    Raises:
        ConfigError: it is not positive.
    """
    from ..errors import ConfigError

    if args.test_timeout is None:
        return {}
    if not 0 < args.test_timeout < float("inf"):
        raise ConfigError(f"--test-timeout is {args.test_timeout}; a positive number of seconds is needed")
    return {"test_timeout_s": args.test_timeout}


def untrusted_of(args: argparse.Namespace) -> "dict[str, str]":
    """``--untrusted`` as an environment takes it; nothing where it was not given."""
    return {} if args.untrusted is None else {"untrusted": args.untrusted}


def test_timeout_of(args: argparse.Namespace, suite: "Suite") -> float | None:
    """The time limit of tests that was asked for, else the suite's own.

    Raises:
        ConfigError: it is not positive, or the suite has no such limit.
    """
    from ..errors import ConfigError

    asked = checked_test_timeout(args)
    if asked and suite.test_timeout_s is None:
        raise ConfigError(f"--test-timeout means nothing to suite {suite.name!r}; leave it out")
    return asked.get("test_timeout_s", suite.test_timeout_s)


def load_options_of(args: argparse.Namespace) -> "LoadOptions":
    """What the options say of the rows."""
    from .suites.spec import LoadOptions

    return LoadOptions(release=args.release, since=args.since, until=args.until)
