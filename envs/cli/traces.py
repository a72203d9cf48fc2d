"""``verigym tasks traces``: data sets of execution traces."""

import argparse
from pathlib import Path
from typing import Any

GENERATED = ("programs", "small-programs")


def register(kinds: Any, *, sandbox_options: Any, positive: Any) -> None:
    """Add ``traces`` to the subparsers of ``verigym tasks``."""
    traces = kinds.add_parser(
        "traces",
        help="record execution traces of a library's functions under its own tests, or of generated programs",
        description="Record execution traces: of a library's functions, with the inputs its own tests give them, or "
        "of generated programs. Everything runs twice; what differs, is trivial, too long or known is left out. The "
        "folder gets Parquet shards and a manifest.",
    )
    traces.add_argument(
        "source",
        metavar="SOURCE",
        help="a directory, a git repository (path or address), NAME==VERSION on PyPI, or one of the generated kinds: "
        + ", ".join(GENERATED),
    )
    traces.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    traces.add_argument(
        "--limit",
        type=positive,
        default=0,
        metavar="N",
        help="most traces, drawn evenly over functions (generated: 1000)",
    )
    traces.add_argument("--per-function", type=positive, default=12, metavar="N", help="calls of one function (12)")
    traces.add_argument("--max-frames", type=positive, default=400, metavar="N", help="of one trace (400)")
    traces.add_argument(
        "--with", dest="extra", action="append", default=[], metavar="REQUIREMENT", help="for the tests"
    )
    traces.add_argument(
        "--seed", type=int, default=0, metavar="N", help="which programs are generated, which traces are drawn (0)"
    )
    sandbox_options(traces)
    traces.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    import asyncio
    import tempfile

    from ...errors import TaskError
    from ..runs.lock import RunLock
    from ..sandbox.choose import make_backend
    from ..synthesis.sources import open_source
    from ..trace.examples import Sieve, Wanted
    from ..trace.library import RecordingSettings
    from ..trace.make import make_from_library, make_from_programs
    from ..trace.shards import MANIFEST
    from .terminal import progress_bar, table

    if (args.out / MANIFEST).exists():
        raise TaskError(f"{args.out} holds a data set of traces already; give another folder, or remove it")
    backend = make_backend(args.sandbox)
    sieve = Sieve(wanted=Wanted(max_frames=args.max_frames))
    with RunLock(args.out), progress_bar() as tell:
        if args.source in GENERATED:
            num = args.limit or 1000
            making = make_from_programs(
                args.source, num, args.out, seed=args.seed, backend=backend, sieve=sieve, tell=tell
            )
            made = asyncio.run(making)
        else:
            settings = RecordingSettings(max_events=args.max_frames, per_function=args.per_function)
            with tempfile.TemporaryDirectory(prefix="verigym-source-") as workdir:
                tell(f"fetching {args.source}", 0, 0)
                source = open_source(args.source, Path(workdir), extra=args.extra)
                making = make_from_library(
                    source,
                    args.out,
                    backend=backend,
                    settings=settings,
                    sieve=sieve,
                    limit=args.limit,
                    seed=args.seed,
                    tell=tell,
                )
                made = asyncio.run(making)
    table(f"traces of {args.source}", ("what", "number"), sorted(made.counts.items()))
    if not made.manifest["num_traces"]:
        raise TaskError(f"{args.source} gave no trace to keep; the table says why")
    print(f"wrote {made.manifest['num_traces']} traces, {made.manifest['num_frames']} frames to {args.out}")
    return 0
