"""``verigym convert``. Heavy imports wait until it runs."""

import argparse
from pathlib import Path

from ...errors import ConfigError
from ...terminal import console


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command to the parser of ``verigym``."""
    parser = commands.add_parser(
        "convert",
        help="turn a checkpoint into Hugging Face's format or torch's DCP",
        description="Convert a checkpoint of our decoder's families, bit for bit; memory is for one shard. The format "
        "of SRC is found out. A GGUF file is computed back from its quantized numbers, in memory.",
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="a folder of safetensors or of DCP, or FILE.gguf")
    parser.add_argument("target", type=Path, metavar="DST", help="a folder that does not exist yet")
    parser.add_argument("--to", choices=("hf", "dcp"), required=True, help="hf: safetensors; dcp: as Meta's release")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of the weights that are made of a GGUF file; default float32"
    )
    parser.set_defaults(run=_convert)


def _convert(args: argparse.Namespace) -> int:
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    from .convert import convert
    from .gguf import convert_gguf, is_gguf

    if is_gguf(args.source):
        if args.to != "hf":
            raise ConfigError(f"{args.source} becomes safetensors; give --to hf")
        import torch

        convert_gguf(args.source, args.target, dtype=getattr(torch, args.dtype or "float32"))
        return _done(args)
    if args.dtype is not None:
        raise ConfigError("--dtype is for GGUF files; other formats keep every number as it is")
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
    return _done(args)


def _done(args: argparse.Namespace) -> int:
    size = sum(file.stat().st_size for file in args.target.iterdir())
    print(f"{args.target}: {args.to}, {len(list(args.target.iterdir()))} files, {size:,} bytes")
    return 0
