"""``verigym view``: runs in the browser, as they are written; or one run's episodes as an HTML file."""

import argparse
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

PORT = 7654
DEFAULT = Path("runs")


def register(commands: Any) -> None:
    """Add ``view`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "view",
        help="watch, read and compare runs in the browser",
        description="Serve a page of the runs in and below the folders: curves, episodes, tokens, evaluations, as they "
        "are written. Nothing is written into a run, nothing leaves the machine. With --html the episodes of one run "
        "become one file without scripts, to hand on.",
    )
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER", help=f"default: {DEFAULT}")
    parser.add_argument("--port", type=int, default=PORT, metavar="P", help=f"default: {PORT}, or the next free one")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write one run's episodes there, and serve nothing")
    parser.add_argument("--limit", type=int, metavar="N", help="with --html, only the first N episodes")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted, or write the file."""
    from ...errors import ConfigError

    if args.limit is not None and args.limit < 1:
        raise ConfigError(f"--limit is {args.limit}; at least 1 is needed")
    if args.limit is not None and args.html is None:
        raise ConfigError("--limit is of --html FILE; the served page shows all episodes")
    if not 0 <= args.port <= 65535:
        raise ConfigError(f"--port is {args.port}; it must be between 0 and 65535")
    folders = args.folders or [DEFAULT]
    missing = [folder for folder in folders if not folder.exists()]
    if missing:
        raise ConfigError(f"{missing[0]} does not exist; give the folder of a run, or one that runs are in")
    if args.html is not None:
        if len(folders) != 1:
            raise ConfigError(f"--html is of one run, and {len(folders)} folders are given; give one")
        return _write(folders[0], args.html, args.limit)
    return _serve(folders, args.port)


def _serve(folders: list[Path], port: int) -> int:
    import uvicorn

    from .app import make_app
    from .listening import bound

    listener = bound(port, is_default=port == PORT)
    address = "http://{}:{}".format(*listener.getsockname()[:2])
    print(f"{address}  (Ctrl-C ends it)", flush=True)
    # No access log: the page asks twice a second. A page that is open must not hold the end up.
    config = uvicorn.Config(make_app(folders), log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        listener.close()
    return 0


def _write(source: Path, out: Path, limit: int | None) -> int:
    from ...envs.runs.files import written_whole
    from ...errors import TaskError
    from .page import page

    try:
        with written_whole(out) as file:
            file.writelines(page(str(source), islice(_rows(source), limit), **_worth(source)))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, TaskError):
            raise
        raise TaskError(f"{source} does not hold episodes: {type(error).__name__}: {error}") from None
    print(f"wrote {out}", file=sys.stdout)
    return 0


def _worth(source: Path) -> dict[str, Any]:
    """What stands in a run's folder of its worth and of its passes, as ``page`` takes it."""
    from ..worth_told import report_rows
    from .flags import flags_of
    from .runs import read_json

    flags = {key: "; ".join(told) for key, told in (flags_of(source) or {}).items()}
    return {"worth": report_rows(read_json(source / "report.json") or {}), "flags": flags}


def _rows(source: Path) -> Iterator[dict[str, Any]]:
    """The episodes of a run, as its files have them. Raises ConfigError where it has none."""
    from ...envs.task import read_jsonl
    from ...errors import ConfigError
    from .rows import sources_of
    from .runs import FoundRun, id_of, kind_of

    path = source.resolve()
    kind = kind_of(path)
    files = [] if kind is None else sources_of(FoundRun(id_of(path), path, path.name, kind))
    files = [one for one in files if one.flavor != "verdict"]
    if not files:
        raise ConfigError(
            f"{source} has no episodes to write; a training run keeps its own, verigym eval keeps them with --out DIR "
            "--save-trajectories"
        )
    for one in files:
        yield from read_jsonl(one.path)
