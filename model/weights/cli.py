"""``verigym convert``. Heavy imports wait until it runs."""

import argparse
from pathlib import Path

from ...terminal import console


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of ``verigym``."""
    parser = commands.add_parser(
        "convert",
        help="turn a checkpoint into Hugging Face's format or torch's DCP",
        description="Convert a CWM checkpoint, bit for bit. The format of SRC is found out; memory is for one shard.",
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="a folder of safetensors, or of torch's DCP")
    parser.add_argument("target", type=Path, metavar="DST", help="a folder that does not exist yet")
    parser.add_argument("--to", choices=("hf", "dcp"), required=True, help="hf: safetensors; dcp: as Meta's release")
    parser.set_defaults(run=_convert)


def _convert(args: argparse.Namespace) -> int:
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from .convert import convert

    err = console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as bars:
        task = bars.add_task(f"to {args.to}", total=None)
        convert(
            args.source,
            args.target,
            to=args.to,
            tell=lambda done, total: bars.update(task, completed=done, total=total),
        )
    size = sum(file.stat().st_size for file in args.target.iterdir())
    print(f"{args.target}: {args.to}, {len(list(args.target.iterdir()))} files, {size:,} bytes")
    return 0
