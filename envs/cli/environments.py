"""``verigym envs``: make one, list them, check one. Heavy imports wait until it runs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...terminal import console

if TYPE_CHECKING:
    from ..registry.check import Finding


def register(commands: Any) -> None:
    """Add ``envs`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "envs",
        help="make an environment, list them, check one",
        description="Environments: a package for a new one, the ids that are known, and what every one must hold.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    new = actions.add_parser("new", help="write a package with an environment, its test, a recipe and a README")
    new.add_argument("name", metavar="NAME", help='such as "warehouse"')
    new.add_argument("--out", type=Path, metavar="DIR", help="its folder (default: verigym-NAME)")
    new.set_defaults(run=_new)
    listed = actions.add_parser("list", help="the ids that are known here, and where they come from")
    listed.add_argument("--json", action="store_true", help="one JSON object a line")
    listed.set_defaults(run=_list)
    check = actions.add_parser(
        "check",
        help="try an environment: tasks, tools, gold and empty, the same again, at once, leaks, speed",
        description="Try what every environment must hold; 1 where something does not.",
    )
    check.add_argument("env_id", metavar="ID", help="such as verigym/Math-v0, or MODULE:ID")
    check.add_argument("--data", type=Path, metavar="FILE", help="tasks (default: the environment's own)")
    check.add_argument("--sandbox", default="auto", help="where environments that have one run commands")
    check.add_argument(
        "--hook-timeout",
        type=float,
        metavar="SECONDS",
        help="most that one call of a hook may take (default: 60, or less where the environment says so)",
    )
    check.add_argument("--json", action="store_true", help="one JSON object a line")
    check.set_defaults(run=_check)


def _new(args: argparse.Namespace) -> int:
    from ..registry.template import write_template

    folder = args.out or Path(f"verigym-{args.name.replace('_', '-').lower()}")
    for file in write_template(args.name, folder):
        print(file)
    print(f"next: pip install -e {folder}; the README says how to check, try and train it")
    return 0


def _list(args: argparse.Namespace) -> int:
    import json

    from ..registry.listing import known_environments

    rows = known_environments()
    if args.json:
        for row in rows:
            print(json.dumps(row))
        return 0
    from rich.table import Table

    table = Table(title="environments", title_justify="left")
    for column in ("id", "from", "about"):
        table.add_column(column)
    for row in rows:
        table.add_row(row["id"], row["from"], row["about"] or f"[cannot be imported: {row['problem']}]")
    console().print(table)
    return 0


def _check(args: argparse.Namespace) -> int:
    import json
    import sys
    from contextlib import redirect_stdout

    from ..registry.check import told_of

    if not args.json:
        findings = _findings(args)
        for one in findings:
            mark = {True: "ok", False: "FAILED", None: "-"}[one.passed]
            print(f"{mark:6} {one.name:16} {one.told}")
    else:
        with redirect_stdout(sys.stderr):  # what an environment prints is no JSON
            findings = _findings(args)
        for one in findings:
            print(json.dumps(told_of(one)))
    return 1 if any(one.passed is False for one in findings) else 0


def _findings(args: argparse.Namespace) -> "list[Finding]":
    import asyncio

    from ..registry.check import check_environment
    from ..registry.opening import open_env, own_tasks, read_any_tasks

    offered = {"sandbox": args.sandbox}
    env = open_env(args.env_id, offered)
    limit_s = args.hook_timeout or (None if env.hook_timeout_s is None else min(60.0, env.hook_timeout_s))
    env.hook_timeout_s = limit_s
    tasks = read_any_tasks(args.data) if args.data is not None else own_tasks(env)
    return asyncio.run(check_environment(lambda: open_env(args.env_id, offered), tasks, hook_timeout_s=limit_s))
