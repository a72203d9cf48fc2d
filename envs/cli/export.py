"""``verigym tasks export``: tasks in another program's format."""

import argparse
from pathlib import Path
from typing import Any


def register(kinds: Any) -> None:
    """Add the command to the subparsers of ``verigym tasks``."""
    export = kinds.add_parser(
        "export",
        help="write tasks of repositories as folders in Harbor's format",
        description="Write a folder for each row with an image: task.toml, instruction.md, tests with the row's own "
        "script, and the gold patch as solution. Rows whose log is not pytest's are left out, with the reason.",
    )
    export.add_argument("file", type=Path, metavar="ROWS", help="SWE-bench rows with image and eval_script")
    export.add_argument("--to", choices=("harbor",), required=True, help="the format")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to make")
    export.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> int:
    from ...errors import TaskError
    from ..harbor.export import export_harbor
    from ..registry.opening import read_any_tasks
    from .terminal import table

    done = export_harbor(read_any_tasks(args.file), args.out)
    if done.refused:
        table(f"{len(done.refused)} tasks are left out", ("task", "because"), done.refused)
    if not done.written:
        raise TaskError(f"no row of {args.file} could be exported; the reasons are above")
    print(f"wrote {len(done.written)} tasks to {args.out}; run them with: verigym eval harbor --data {args.out}")
    return 0
