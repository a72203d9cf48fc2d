"""``verigym eval audit RUN``: the passes of a run looked at, and what its figures are worth."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .verdict import Verdict

logger = logging.getLogger(__name__)


def add_audit_option(parser: argparse.ArgumentParser) -> None:
    """--audit."""
    parser.add_argument(
        "--audit",
        type=Path,
        metavar="FILE",
        help="certificates of verigym tasks audit: report pass@1 on sound tasks, by class, with the graders' errors",
    )


def check_audit(args: argparse.Namespace) -> None:
    """Refuse a file that holds no certificates, before anything runs.

    Raises:
        TaskError: as ``read_certificates``.
    """
    from ..envs.audit.ledger import read_certificates

    if args.audit is not None:
        read_certificates(args.audit)


def worth(path: Path, verdicts: "Sequence[Verdict]", against: Path | None = None) -> dict[str, Any]:
    """The report's "worth".

    Raises:
        TaskError: the file holds no certificates. ConfigError: none of the run's tasks.
    """
    from ..envs.audit.ledger import read_certificates
    from ..envs.datasets.files import read_rows
    from ..errors import ConfigError
    from .verdict import Verdict
    from .worth import worth_of

    other = None
    if against is not None:
        other = [Verdict.from_json(row.value) for row in read_rows(against / "verdicts.jsonl")]
    found = worth_of(verdicts, read_certificates(path), other)
    if not found["audited"] and found["num_tasks"]:
        raise ConfigError(
            f"--audit {path} has a certificate of none of the {found['num_tasks']} tasks; audit their rows"
        )
    return found


def run_audit(args: argparse.Namespace) -> int:
    """Look at a recorded run again."""
    from ..envs.datasets.files import read_rows
    from ..envs.datasets.folders import digest_of
    from ..envs.runs.files import read_object
    from ..errors import ConfigError
    from ..terminal import console
    from .passes import look_at_passes, told_passes
    from .report_files import write_report
    from .suites.loading import load_suite
    from .verdict import Verdict
    from .worth_told import told_worth

    folder: Path | None = args.folder
    if folder is None:
        raise ConfigError("verigym eval audit needs RUN, the --out DIR of an evaluation")
    remedy = "give the --out DIR of an evaluation that ended"
    settings = read_object(folder / "settings.json", "the settings of the run", remedy, ConfigError)
    report = read_object(folder / "report.json", "the report of the run", remedy, ConfigError)
    made_of = settings.get("data_sha256")
    if made_of and args.data is None:
        raise ConfigError(f"{folder} was made of a file of rows, which says what solves them; give it by --data FILE")
    if made_of and made_of != digest_of(args.data):
        logger.warning("%s is not as it was when %s was made: flags may rest on other references", args.data, folder)
    suite = load_suite(settings["suite"], data=args.data)
    report["passes"] = look_at_passes(folder, suite.tasks)
    verdicts = [Verdict.from_json(row.value) for row in read_rows(folder / "verdicts.jsonl")]
    missing = sorted({one.task_id for one in verdicts} - {task.id for task in suite.tasks})
    if missing:
        raise ConfigError(
            f"{folder} has verdicts on {len(missing)} tasks that are not among the rows, such as {missing[0]}; give "
            "the rows that the run was made of"
        )
    if args.audit is not None:
        report["worth"] = worth(args.audit, verdicts, args.against)
    write_report(folder, report)
    told = [told_passes(report["passes"]) or "no episode of the family swe resolved"]
    if args.audit is not None:
        told.append(told_worth(report["worth"]))
    console().print("\n".join(told), highlight=False, markup=False, soft_wrap=True)
    return 0
