"""``verigym tasks certify``: rows that hold, each with a signed certificate; the rest set apart."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audit.certify import ACCEPTABLE, SET_APART

if TYPE_CHECKING:
    from ..audit.certificate import Certificate
    from ..audit.certify import Demand

KEY_BYTES = 32


def register(kinds: Any, *, sandbox_options: Any, positive: Any) -> None:
    """Add ``certify`` to the subparsers of ``verigym tasks``."""
    certify = kinds.add_parser(
        "certify",
        help="keep the rows that hold, each with a signed certificate, and set the rest apart",
        description="Audit every row (verigym tasks audit) and grade its gold and its empty patch several times. "
        "FILE.jsonl gets the rows that hold, FILE.audit.jsonl a signed certificate for each row, "
        "FILE.quarantine.jsonl the other rows with the reason. With --check nothing runs: rows and certificates of an "
        "earlier run are compared.",
    )
    certify.add_argument("file", metavar="ROWS", help="SWE-bench rows: a file, a folder, or hub:OWNER/NAME")
    certify.add_argument("--out", type=Path, metavar="FILE", help="the rows that hold (JSON Lines)")
    certify.add_argument("--check", action="store_true", help="compare certified ROWS with their certificates")
    certify.add_argument("--limit", type=positive, metavar="N", help="only the first N rows")
    certify.add_argument("--resume", action="store_true", help="go on: what has a certificate is not done again")
    certify.add_argument("--times", type=positive, default=3, metavar="N", help="how often each is graded (3)")
    certify.add_argument(
        "--accept",
        action="append",
        default=[],
        choices=ACCEPTABLE,
        help="a class of the audit that is kept, besides sound; may be repeated",
    )
    certify.add_argument(
        "--sign-with",
        type=Path,
        metavar="FILE",
        help="a file whose bytes sign the certificates (HMAC-SHA256; a key of this user that is made at first use)",
    )
    certify.add_argument("--mutants", type=positive, default=20, metavar="N", help="wrong solutions to try a row (20)")
    certify.add_argument(
        "--notes", type=positive, default=60, metavar="N", help="varied copies of tests to tell mutants apart by (60)"
    )
    certify.add_argument(
        "--row-minutes", type=positive, default=15, metavar="M", help="leave a row after so many minutes (15)"
    )
    certify.add_argument(
        "--test-timeout", type=float, default=1_800.0, metavar="S", help="seconds of one run of a row's tests (1800)"
    )
    sandbox_options(certify)
    certify.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from ...errors import ConfigError
    from ..audit.certify import Demand

    demand = Demand(times=args.times, accept=frozenset(args.accept))
    if args.check:
        return _check(args, demand)
    if args.out is None:
        raise ConfigError("verigym tasks certify needs --out FILE for the rows that hold, or --check")
    if args.sandbox == "unsafe":
        raise ConfigError("the sandbox unsafe hides nothing and has a network; certify in local, oci, docker or podman")
    return _certify(args, demand)


def _certify(args: argparse.Namespace, demand: "Demand") -> int:
    from ..audit.ledger import Ledger
    from ..synthesis.validate import copy_archives
    from .audit import each_once, measure_all, read_all
    from .terminal import progress_bar

    rows = each_once(args.file, args.limit)
    out, folder = args.out, args.out.parent
    _refuse_other_files(args.file, out, resume=args.resume)
    ledger = Ledger(_beside(out, "audit"), resume=args.resume, key=_key(args.sign_with))
    rows = copy_archives(args.file, out, rows)
    with progress_bar() as tell:
        certificates = read_all(rows, ledger, folder, None, tell)
    certificates = measure_all(args, rows, certificates, ledger, folder)
    certificates = _grade_all(args, rows, certificates, demand, ledger)
    ledger.finish(certificates)
    _write(out, rows, certificates, demand)
    _show(certificates, demand, out)
    return 0


def _grade_all(args: argparse.Namespace, rows: Any, certificates: Any, demand: "Demand", ledger: Any) -> Any:
    import asyncio

    from ..audit.certify import certify_rows
    from ..sandbox.choose import make_backend
    from .terminal import progress_bar

    with progress_bar() as tell:
        return asyncio.run(
            certify_rows(
                rows,
                certificates,
                folder=args.out.parent,
                backend=make_backend(args.sandbox),
                demand=demand,
                workers=args.workers,
                timeout_s=args.test_timeout,
                ledger=ledger,
                progress=tell,
            )
        )


def _refuse_other_files(source: str, out: Path, *, resume: bool) -> None:
    """Raises ConfigError where ``out`` is the source, or stands for something that this run did not write."""
    from ...errors import ConfigError

    if Path(source).exists() and Path(source).resolve() == out.resolve():
        raise ConfigError(f"--out {out} is the file of the rows; give another one")
    if out.exists() and not resume:
        raise ConfigError(f"{out} is there; go on with --resume, or give another --out")


def _beside(out: Path, kind: str) -> Path:
    return out.with_suffix(f".{kind}.jsonl")


def _key(path: Path | None) -> bytes:
    """The key of a file; without one that of this user, made at first use."""
    import os
    import secrets

    from ...errors import ConfigError
    from ..sandbox.python import cache_folder
    from .audit import key_in

    if path is not None:
        return key_in(path)
    own = cache_folder() / "certify.key"
    try:
        own.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(f"no key can be kept at {own} ({error}); give one with --sign-with FILE") from None
    return key_in(own)


def _write(out: Path, rows: Sequence[dict[str, Any]], certificates: "Sequence[Certificate]", demand: "Demand") -> None:
    import json

    from ..task import write_jsonl

    kept, apart = [], []
    for row, certificate in zip(rows, certificates, strict=True):
        row = json.loads(json.dumps(row, default=str))  # a table may hold dates
        reason = demand.refusal(certificate)
        (apart if reason else kept).append({**row, SET_APART: reason} if reason else row)
    write_jsonl(out, kept)
    write_jsonl(_beside(out, "quarantine"), apart)


def _show(certificates: "Sequence[Certificate]", demand: "Demand", out: Path) -> None:
    from .terminal import table

    reasons = [demand.refusal(one) for one in certificates]
    table(
        f"{reasons.count('')} of {len(reasons)} rows are certified",
        ("task", "gold", "empty", "runs", "mutants noticed", "lines of the fix found", "verdict"),
        (_line(one, reason) for one, reason in zip(certificates, reasons)),
    )
    counts = Counter(reason.partition(":")[0] for reason in reasons if reason)
    if counts:
        print(f"set apart: {', '.join(f'{count} {kind}' for kind, count in counts.most_common())}")
    print(f"wrote {out}, {_beside(out, 'audit')} (certificates), {_beside(out, 'quarantine')} (the other rows)")
    if counts["not run"]:
        print("rows that were not run are tried again with --resume")


def _line(one: "Certificate", reason: str) -> Sequence[object]:
    measured: Mapping[str, Any] = one.measured
    graded, runs, mutants, leaks = (measured.get(key, {}) for key in ("graded", "runs", "mutants", "leaks"))
    told = f"{mutants['tried'] - mutants['resolved']} of {mutants['tried']}" if mutants else "-"
    times = f"{runs['tried'] - len(runs['failed'])} of {runs['tried']}" if "failed" in runs else "-"
    found = f"{leaks['found']} of {leaks['lines']}" if leaks else "-"
    return (
        one.instance_id,
        graded.get("gold", "-"),
        graded.get("empty", "-"),
        times,
        told,
        found,
        reason[:100] or "holds",
    )


def _check(args: argparse.Namespace, demand: "Demand") -> int:
    """Whether rows are those that were certified, and their certificates those that this key has signed."""
    from ...errors import TaskError
    from ..audit.certificate import digest_of
    from ..task import read_jsonl
    from .terminal import table

    path, key = Path(args.file), _key(args.sign_with)
    rows = list(read_jsonl(path))
    if not rows:
        raise TaskError(f"{path} has no rows; there is nothing to check")
    certificates = {one.get("row_sha256"): one for one in read_jsonl(_beside(path, "audit"))}
    problems = [
        (str(row.get("instance_id", "?")), problem)
        for row in rows
        if (problem := _problem(row, certificates.get(digest_of(row)), path.parent, key, demand))
    ]
    table(f"{len(rows) - len(problems)} of {len(rows)} rows are as certified", ("task", "because"), problems)
    return 1 if problems else 0


def _problem(
    row: Mapping[str, Any], content: Mapping[str, Any] | None, folder: Path, key: bytes, demand: "Demand"
) -> str:
    from ..audit.certificate import Certificate, check_signature
    from ..audit.certify import archive_sha256

    if content is None:
        return "no certificate is of this row as it stands"
    if not check_signature(content, key):
        return f"its certificate was signed with another key ({content.get('signed_with', '?')}) or changed since"
    certificate = Certificate.from_json(content)
    if archive_sha256(row, folder) != certificate.measured.get("archive_sha256"):
        return "its archive is another one than was certified"
    return demand.refusal(certificate)
