"""``verigym runs``: which runs there are, and how they do."""

import argparse
import json
from pathlib import Path
from typing import Any


def register(commands: Any) -> None:
    """Add ``runs`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "runs",
        help="list runs: their state, progress and result",
        description="List the runs in and below the folders, those with the latest sign of life first.",
    )
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help="default: runs")
    parser.add_argument("--json", action="store_true", help="print a JSON list")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the table, or the list."""
    from ..errors import ConfigError
    from .viewer.figures import Metrics, Verdicts, listed

    folders = args.folders or [Path("runs")]
    missing = [folder for folder in folders if not folder.exists()]
    if missing:
        raise ConfigError(f"{missing[0]} does not exist; give the folder of a run, or one that runs are in")
    rows = sorted(listed(folders, Metrics(), Verdicts()), key=lambda row: -row["sign"])
    if args.json:
        print(json.dumps(rows))
        return 0
    _print(rows)
    return 0


def _print(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from ..agent.transcript import printable
    from ..terminal import console

    table = Table(box=None, pad_edge=False)
    for name in ("run", "kind", "state", "progress", "result", "last sign"):
        table.add_column(name, justify="right" if name in ("result", "last sign") else "left", no_wrap=name != "run")
    for row in rows:
        table.add_row(
            printable(row["name"]),
            row["kind"],
            row["state"],
            printable(_progress(row)),
            _result(row),
            _ago(row["sign"]),
        )
    console().print(table if rows else "no run")


def _progress(row: dict[str, Any]) -> str:
    if row.get("step"):
        steps = row["steps"].get(row["stage"])
        of = f" of {steps}" if steps else ""
        return f"{row['stage']} {row['step']}{of}"
    return f"{row['episodes']} samples" if row.get("episodes") is not None else "-"


def _result(row: dict[str, Any]) -> str:
    figure = row.get("figure") or {}
    return "-" if figure.get("value") is None else f"{figure['name']} {figure['value']:.3f}"


def _ago(sign: float) -> str:
    import time

    past = max(0.0, time.time() - sign)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if past >= 2 * size:
            return f"{past / size:.0f} {unit} ago"
    return f"{past:.0f} s ago"
