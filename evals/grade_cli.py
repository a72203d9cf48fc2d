"""``verigym grade``: predictions that are there already. Heavy imports wait until it runs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent.options import add_sandbox_option, add_test_timeout_option, add_untrusted_option
from ..terminal import console
from .audit_cli import add_audit_option, check_audit, worth
from .data_options import (
    add_against_option,
    add_data_options,
    add_ray_option,
    check_against,
    load_options_of,
    test_timeout_of,
)

if TYPE_CHECKING:
    from ..envs.runs.lock import RunLock
    from ..envs.task import Task
    from .predictions import Job
    from .suites.spec import Suite
    from .verdict import Verdict


def register(commands: Any) -> None:
    """Add ``grade`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "grade",
        help="grade predictions with a suite's grader; no model is asked",
        description="Grade answers, programs or patches: any number of rows a task, verdicts in the order given.",
        epilog="A DIR that exists is resumed: no prediction is graded twice.",
    )
    parser.add_argument("suite", metavar="SUITE", help="such as math500; an unknown word lists all")
    add_data_options(parser)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help='rows {"task_id", "prediction"} or {"instance_id", "model_patch"}, as JSON Lines, JSON or Parquet; '
        "an agent's preds.json, or a folder of its .pred files",
    )
    given.add_argument("--logs", type=Path, metavar="INDEX", help="stored logs of SWE-bench, by their index")
    parser.add_argument(
        "--strict",
        action="store_true",
        help="of a stored log only what stands between its markers counts, as in gradings of our own; without it, "
        "where they hold no status, the whole log, as in swebench",
    )
    add_sandbox_option(parser)
    add_test_timeout_option(parser)
    add_untrusted_option(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="gradings at once (default: the cores)")
    add_ray_option(parser, "grade")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write verdicts.jsonl and report.json there")
    parser.add_argument(
        "--extraction",
        choices=("strict", "lenient"),
        default="lenient",
        help="strict: only an answer in the form asked for (a box); lenient: the one a reader would take (default)",
    )
    add_against_option(parser)
    add_audit_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Grade, print the table, and write the JSON."""
    import sys
    import time
    from contextlib import nullcontext

    from ..envs.runs.lock import RunLock
    from ..errors import ConfigError, GradingError
    from .report import build_report, compare_with, report_table, told_comparison, told_failures
    from .report_files import write_report
    from .suites.registry import suite_named
    from .worth_told import told_worth_of

    check_against(args)
    check_audit(args)
    if args.strict and args.logs is None:
        raise ConfigError("--strict is of stored logs; give --logs INDEX, or leave it out")
    if args.workers is not None and args.workers < 1:
        raise ConfigError(f"--workers is {args.workers}; at least 1 is needed")
    suite = suite_named(args.suite)
    if args.untrusted is not None and "swe" not in suite.env_ids:
        raise ConfigError(f"--untrusted is of patches, and suite {suite.name!r} grades none; leave it out")
    test_timeout_s = test_timeout_of(args, suite)
    tasks, jobs = _jobs(args, suite)
    settings = _settings(args)
    started = time.monotonic()
    with RunLock(args.out) if args.out is not None else nullcontext() as lock:
        try:
            verdicts = _grade(args, suite, jobs, settings, lock, test_timeout_s)
        except KeyboardInterrupt:
            if args.out is not None:
                print(
                    f"verigym: verdicts so far are in {args.out}; the same command goes on from them", file=sys.stderr
                )
            raise
        given = str(args.predictions or args.logs)
        seconds = time.monotonic() - started
        report = build_report(args.suite, given, verdicts, seconds=seconds, settings=settings, kind="predictions")
        if args.against is not None:
            report["against"] = compare_with(verdicts, args.against)
        if args.audit is not None:
            report["worth"] = worth(args.audit, verdicts, args.against)
        if args.out is not None:
            write_report(args.out, report)
            if suite.write_report is not None:
                errors = [verdict.task_id for verdict in verdicts if verdict.passed is None]
                suite.write_report(args.out, [task.id for task in tasks], errors)
    console().print(report_table(report))
    if args.audit is not None:
        console().print(told_worth_of(report), highlight=False, markup=False, soft_wrap=True)
    if args.against is not None:
        console().print(told_comparison(report["against"]), highlight=False, soft_wrap=True)
    told = told_failures(verdicts)
    if told and report["n"]:
        print(f"verigym: {told}", file=sys.stderr)
    if not report["n"]:
        raise GradingError(f"none of {len(verdicts)} predictions could be graded; the first: {verdicts[0].detail}")
    return 0


def _jobs(args: argparse.Namespace, suite: "Suite") -> "tuple[list[Task], list[Job]]":
    """All input, read and checked before anything is written: (the suite's tasks, what is to be graded)."""
    from ..errors import ConfigError
    from .predictions import match, read_predictions
    from .suites.loading import load_tasks

    if suite.make_grader is None:
        raise ConfigError(f"suite {suite.name!r} has no grader of predictions; run it with verigym eval")
    if args.logs is not None and suite.read_logs is None:
        raise ConfigError(f"suite {suite.name!r} takes no --logs; give --predictions FILE")
    tasks = load_tasks(suite, data=args.data, options=load_options_of(args))
    if args.logs is not None:
        assert suite.read_logs is not None
        return tasks, match(suite, tasks, suite.read_logs(args.logs))
    return tasks, match(suite, tasks, read_predictions(args.predictions))


def _grade(
    args: argparse.Namespace,
    suite: "Suite",
    jobs: "list[Job]",
    settings: dict[str, Any],
    lock: "RunLock | None",
    test_timeout_s: float | None,
) -> "list[Verdict]":
    import asyncio
    import os
    from contextlib import ExitStack

    from .grade import grade
    from .live import LiveProgress
    from .suites.spec import GradeOptions

    assert suite.make_grader is not None
    workers = args.workers or os.cpu_count() or 1
    options = GradeOptions(
        sandbox=args.sandbox,
        workers=workers,
        lenient=args.extraction == "lenient",
        strict_logs=args.strict,
        untrusted=args.untrusted or "fail",
        test_timeout_s=test_timeout_s,
        out=args.out,
    )
    with ExitStack() as inside:
        if args.ray is None:
            grader = suite.make_grader(options)
        else:
            grader, workers = inside.enter_context(args.grading_on_cluster(args.ray, suite.name, options))
            workers = args.workers or workers
        progress = inside.enter_context(LiveProgress("grading", len(jobs)))
        work = grade(jobs, grader, workers=workers, out=args.out, settings=settings, told=progress.told, lock=lock)
        return asyncio.run(work)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What makes two runs the same run."""
    from ..envs.datasets.folders import digest_of

    asked = {
        "strict_logs": args.strict or None,
        "test_timeout_s": args.test_timeout,
        "untrusted": args.untrusted,
    }
    return {
        **{name: value for name, value in asked.items() if value is not None},
        "suite": args.suite,
        "data_sha256": digest_of(args.data),
        "predictions_sha256": digest_of(args.predictions or args.logs),
        "release": args.release,
        "since": args.since,
        "until": args.until,
        "sandbox": args.sandbox,
        "extraction": args.extraction,
    }
