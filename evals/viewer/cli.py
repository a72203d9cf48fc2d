"""``verigym view``: a run's episodes as an HTML file."""

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

NAME = "trajectories.jsonl"


def register(commands: Any) -> None:
    """Add ``view`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "view",
        help="write a run's episodes as an HTML file",
        description="Write the episodes of a run (eval --save-trajectories, forage) as one HTML file: turns, calls, "
        "rewards, and tokens where there are any. Nothing is served or fetched.",
    )
    parser.add_argument("source", type=Path, metavar="RUN_DIR", help=f"a folder with {NAME}, or such a file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: view.html beside the episodes)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N episodes")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page, whole or not at all, and say where it is."""
    from ...envs.task import read_jsonl
    from ...errors import ConfigError, TaskError
    from .page import page

    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit is {args.limit}; at least 1 is needed")
    path = args.source / NAME if args.source.is_dir() else args.source
    if not path.is_file():
        raise ConfigError(f"{args.source} has no {NAME}; verigym eval --out DIR --save-trajectories writes it")
    out = args.out or path.with_name("view.html")
    partial = out.with_name(out.name + ".partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.writelines(page(str(args.source), islice(read_jsonl(path), args.limit)))
        partial.replace(out)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, TaskError):
            raise
        raise TaskError(f"{path} does not hold trajectories: {type(error).__name__}: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
    print(f"wrote {out}")
    return 0
