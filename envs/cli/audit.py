"""``verigym tasks audit``: what the verdicts of tasks are worth."""

import argparse
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..audit.certificate import Certificate
    from ..audit.ledger import Ledger

logger = logging.getLogger(__name__)

Tell = Callable[[str, int, int], None]

MOST_SHOWN = 40
"""Rows of a table; the file has them all."""


def register(kinds: Any, *, sandbox_options: Any, positive: Any) -> None:
    """Add ``audit`` to the subparsers of ``verigym tasks``."""
    audit = kinds.add_parser(
        "audit",
        help="how far each task's verdict can be trusted: weak, narrow, underspecified, flaky, leaky",
        description="Say of each row how far its verdict can be trusted, with evidence: a certificate a line. Variants "
        "of the reference run under the hidden tests in sandboxes; --static reads the text alone.",
    )
    audit.add_argument("file", metavar="ROWS", help="SWE-bench rows: a file, a folder, or hub:OWNER/NAME")
    audit.add_argument("--out", type=Path, required=True, metavar="FILE", help="the certificates (JSON Lines) to write")
    audit.add_argument("--static", action="store_true", help="read the rows' text and run nothing")
    audit.add_argument("--limit", type=positive, metavar="N", help="only the first N rows")
    audit.add_argument("--resume", action="store_true", help="go on with FILE: rows that are in it are not done again")
    audit.add_argument(
        "--clones", type=Path, metavar="DIR", help="folder of clones, to look up what stands at base (OWNER__NAME)"
    )
    audit.add_argument(
        "--sign-with", type=Path, metavar="FILE", help="a file whose bytes sign the certificates (HMAC-SHA256)"
    )
    audit.add_argument("--mutants", type=positive, default=20, metavar="N", help="wrong solutions to try a row (20)")
    audit.add_argument(
        "--notes", type=positive, default=60, metavar="N", help="varied copies of tests to tell mutants apart by (60)"
    )
    audit.add_argument(
        "--row-minutes", type=positive, default=15, metavar="M", help="leave a row after so many minutes (15)"
    )
    audit.add_argument(
        "--judge", metavar="SPEC", help="ask a policy how narrow and underspecified it reads each row: no class changes"
    )
    audit.add_argument(
        "--memory", metavar="SPEC", help="ask a policy for each reference from its statement alone: no class changes"
    )
    sandbox_options(audit)
    audit.set_defaults(run=run)

    stronger = kinds.add_parser(
        "strengthen",
        help="add tests to tasks that accept wrong solutions",
        description="Copies of a task's own tests with other arguments, which tell the reference from wrong solutions "
        "that its tests accept. Kept are those that the reference and all its neutral rewrites pass, three times. The "
        "rows written give a second verdict; the official one stays what it is.",
    )
    stronger.add_argument("file", metavar="ROWS", help="SWE-bench rows: a file, a folder, or hub:OWNER/NAME")
    stronger.add_argument("--out", type=Path, required=True, metavar="FILE", help="the stronger rows to write")
    stronger.add_argument("--audit", type=Path, metavar="FILE", help="certificates: only rows of the class weak")
    stronger.add_argument("--limit", type=positive, metavar="N", help="only the first N rows")
    stronger.add_argument("--mutants", type=positive, default=20, metavar="N", help="wrong solutions to try a row (20)")
    stronger.add_argument(
        "--notes", type=positive, default=60, metavar="N", help="varied copies to try, by halves (60)"
    )
    sandbox_options(stronger)
    stronger.set_defaults(run=run_strengthen)


def run(args: argparse.Namespace) -> int:
    from ...errors import ConfigError
    from ..audit.ledger import Ledger
    from ..datasets.training import folder_of
    from ..runs.lock import RunLock
    from .terminal import progress_bar

    if args.clones is not None and not args.clones.is_dir():
        raise ConfigError(f"--clones {args.clones} is no folder; give the one that the clones are in")
    rows = each_once(args.file, args.limit)
    with RunLock(args.out, is_file=True):
        ledger = Ledger(args.out, resume=args.resume, key=key_in(args.sign_with))
        folder = folder_of(args.file)
        with progress_bar() as tell:
            certificates = read_all(rows, ledger, folder, args.clones, tell)
        if not args.static:
            certificates = measure_all(args, rows, certificates, ledger, folder)
        for name, spec in (("judge", args.judge), ("memory", args.memory)):
            if spec is not None:
                certificates = _ask_all(args, name, spec, rows, certificates, ledger)
        ledger.finish(certificates)
    _show(certificates)
    print(f"wrote {args.out}")
    return 0


def each_once(file: str, limit: int | None) -> list[dict[str, Any]]:
    """The first rows of a source, one that stands there twice once; the log is told.

    Raises:
        TaskError: there is none, or two differ that have one instance_id, by which certificates are found.
    """
    from ...errors import TaskError
    from ..audit.certificate import digest_of
    from ..datasets.training import rows_of

    rows = [dict(row.value) for row in rows_of(file)][:limit]
    if not rows:
        raise TaskError(f"{file} has no rows; there is nothing to audit")
    found = {digest_of(row): row for row in rows}
    if len(found) < len(rows):
        logger.warning("%s: %d rows stand there again; each is taken once", file, len(rows) - len(found))
    names = Counter(row["instance_id"] for row in found.values() if "instance_id" in row)
    for name, count in names.items():
        if count > 1:
            raise TaskError(f"{file} has {count} different rows with the instance_id {name!r}; give each its own")
    return list(found.values())


def run_strengthen(args: argparse.Namespace) -> int:
    import asyncio

    from ...errors import TaskError
    from ..audit.ledger import read_certificates
    from ..audit.many import strengthen_rows
    from ..audit.measure import Effort
    from ..datasets.training import folder_of
    from ..sandbox.choose import make_backend
    from ..synthesis.validate import copy_archives
    from ..task import write_jsonl
    from .terminal import progress_bar, table

    everything = each_once(args.file, None)
    rows = everything[: args.limit]
    if args.audit is not None:
        weak = {name for name, one in read_certificates(args.audit).items() if one.kind == "weak"}
        rows = [row for row in rows if row.get("instance_id") in weak]
    if not rows:
        raise TaskError(f"{args.file} has no row of the class weak by {args.audit}; there is nothing to strengthen")
    with progress_bar() as tell:
        found = asyncio.run(
            strengthen_rows(
                rows,
                folder=folder_of(args.file),
                backend=make_backend(args.sandbox),
                effort=Effort(mutants=args.mutants, notes=args.notes),
                workers=args.workers,
                progress=tell,
            )
        )
    stronger = {one.task_id: one.row for one in found if one.row is not None}
    # The others stand there as they are, so that predictions for all rows can be graded by the file.
    written = [stronger.get(str(row.get("instance_id")), row) for row in everything]
    write_jsonl(args.out, copy_archives(args.file, args.out, written))
    table(
        f"{len(stronger)} of {len(rows)} rows are stronger",
        ("task", "further tests", "accepted before", "refused now", "because"),
        ((one.task_id, one.num_tests, one.num_alive, one.num_killed, one.problem[:100]) for one in found),
    )
    print(f"wrote {args.out}; a second verdict: verigym grade swe --data {args.out} --predictions RUN/preds.jsonl")
    return 0


def key_in(path: Path | None) -> bytes:
    from ...errors import ConfigError

    if path is None:
        return b""
    try:
        key = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--sign-with {path} cannot be read ({error}); give a file of random bytes") from None
    if len(key) < 16:
        raise ConfigError(f"--sign-with {path} has {len(key)} bytes; at least 16 are needed")
    return key


def read_all(
    rows: Sequence[Mapping[str, Any]], ledger: "Ledger", folder: Path, clones: Path | None, tell: Tell
) -> "list[Certificate]":
    """The certificates from the rows' text; those of the ledger are taken."""
    from ...errors import TaskError
    from ..audit.certificate import digest_of
    from ..audit.text.base import standing_in
    from ..audit.text.static import audit_text, refused
    from ..datasets.swe import parse_row

    found: list[Certificate] = []
    for number, raw in enumerate(rows):
        tell("rows read", number, len(rows))
        certificate = ledger.known(digest_of(raw), measured=False)
        if certificate is None:
            try:
                certificate = audit_text(raw, stands=standing_in(parse_row(raw), folder=folder, clones=clones))
            except TaskError as error:
                certificate = refused(raw, error)
            ledger.add(certificate)
        found.append(certificate)
    tell("rows read", len(rows), len(rows))
    return found


def measure_all(
    args: argparse.Namespace,
    rows: Sequence[Mapping[str, Any]],
    certificates: "Sequence[Certificate]",
    ledger: "Ledger",
    folder: Path,
) -> "list[Certificate]":
    """The certificates with what runs in sandboxes; those that were measured before are taken."""
    import asyncio

    from ...terminal import console
    from ..audit.forecast import told_range, told_seconds
    from ..audit.many import forecast_rows, measure_rows, taken_from_cache
    from ..audit.measure import Effort
    from ..sandbox.choose import make_backend
    from .terminal import progress_bar

    effort = Effort(mutants=args.mutants, notes=args.notes, row_minutes=args.row_minutes)
    backend = make_backend(args.sandbox)
    certificates = taken_from_cache(certificates, backend=backend, effort=effort, ledger=ledger)
    shared: Any = {"folder": folder, "backend": backend, "effort": effort, "workers": args.workers, "ledger": ledger}

    async def work() -> "list[Certificate]":
        with progress_bar() as tell:
            forecast = await forecast_rows(rows, certificates, progress=tell, **shared)
        left, timed = len(forecast.names), list(forecast.suites.values())
        if not left:
            return list(certificates)
        known = f"tests take {told_range(timed)} ({len(timed)} timed)" if timed else "no row's tests could be timed"
        most = left * args.row_minutes / args.workers
        console(stderr=True).print(
            f"{left} rows to measure: about {told_seconds(forecast.total_s())} ({known}), at most {args.row_minutes} "
            f"minutes a row ({most:.0f} in all); --resume goes on where it stops"
        )
        with progress_bar() as tell:
            return await measure_rows(rows, certificates, forecast, progress=tell, **shared)

    return asyncio.run(work())


def _ask_all(
    args: argparse.Namespace,
    name: str,
    spec: str,
    rows: Sequence[Mapping[str, Any]],
    certificates: "Sequence[Certificate]",
    ledger: "Ledger",
) -> "list[Certificate]":
    """The certificates with what a policy says of their rows."""
    import asyncio

    from ..audit.text.asked import ask_rows
    from .terminal import progress_bar

    source = args.build_policy(spec)

    async def ask() -> "list[Certificate]":
        try:
            return await ask_rows(name, spec, source.shared(), rows, certificates, keep=ledger.add, progress=tell)
        finally:
            await source.aclose()

    with progress_bar() as tell:
        return asyncio.run(ask())


def _show(certificates: "Sequence[Certificate]") -> None:
    from ..audit.certificate import CUT, NOT_RUN, SCORES
    from .terminal import table

    flagged = [one for one in certificates if one.kind not in ("sound", "unflagged")]
    if flagged:
        first = flagged[:MOST_SHOWN]
        table(
            f"{len(flagged)} that are flagged" + (f", the first {MOST_SHOWN}" if len(first) < len(flagged) else ""),
            ("task", "class", *SCORES, "because"),
            (
                (one.instance_id, one.kind, *(f"{one.scores[name]:.2f}" for name in SCORES), one.reason[:100])
                for one in first
            ),
        )
    undone = [one for one in certificates if one.problem.startswith((NOT_RUN, CUT))]
    if undone:
        table(
            f"{len(undone)} that are not measured, or not to the end",
            ("task", "because"),
            ((one.instance_id, one.problem[:150]) for one in undone[:MOST_SHOWN]),
        )
    counts = Counter(one.kind for one in certificates)
    table(f"{len(certificates)} rows", ("class", "rows"), counts.most_common())
    answers = {name: [one.asked[name] for one in certificates if name in one.asked] for name in ("judge", "memory")}
    if any(answers.values()):
        columns = {"judge": ("narrow", "underspecified"), "memory": ("share",)}
        table(
            "what policies say (means over the rows answered)",
            ("question", "score", "mean", "answered", "asked"),
            (
                (name, column, f"{sum(known) / len(known):.2f}" if known else "-", len(known), len(found))
                for name, found in answers.items()
                for column in columns[name]
                for known in [[one[column] for one in found if column in one]]
                if found
            ),
        )
