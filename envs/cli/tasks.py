"""``verigym tasks``: make tasks from real code, check them, look at them."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..sandbox.choose import NAMES, sandbox_name
from . import audit, certify, export, repositories, traces


def register(commands: Any) -> None:
    """Add ``tasks`` and its commands to an argparse object of subparsers."""
    tasks = commands.add_parser("tasks", help="make tasks from real code, check them, look at them")
    kinds = tasks.add_subparsers(metavar="COMMAND", required=True)

    synthesize = kinds.add_parser(
        "synthesize",
        help="put bugs into a package that its tests find, and write them as SWE-bench rows",
        description="Put bugs into a package that its own tests find, and write them as SWE-bench rows, each as soon "
        "as it is made. The tests run in sandboxes, in an environment of pinned requirements that each row states. "
        "Interrupted, the same command goes on where it was; OUT.done says what was tried.",
    )
    synthesize.add_argument(
        "source", metavar="SOURCE", help="a directory, a git repository (path or address), or NAME==VERSION on PyPI"
    )
    synthesize.add_argument("--out", type=Path, required=True, metavar="FILE", help="the rows (JSON Lines) to write")
    synthesize.add_argument("--limit", type=_positive, default=50, metavar="N", help="most tasks to write (50)")
    synthesize.add_argument(
        "--with",
        dest="extra",
        action="append",
        default=[],
        metavar="REQUIREMENT",
        help="what the tests need besides what the source declares ('pytest<9'); may be repeated",
    )
    synthesize.add_argument("--seed", type=int, default=0, metavar="N", help="which bugs come first (0)")
    synthesize.add_argument(
        "--suite-budget",
        type=float,
        default=2.0,
        metavar="S",
        help="seconds that the package's tests may take to be used whole; a share of about so many, drawn with the "
        "seed, stands for a longer suite, and its rows say so; 0: always whole (2)",
    )
    synthesize.add_argument(
        "--stage-timeout",
        type=float,
        default=120.0,
        metavar="S",
        help="most seconds that the package's tests run, and that may go by without a further task (120)",
    )
    _sandbox_options(synthesize)
    synthesize.set_defaults(run=run_synthesize)

    validate = kinds.add_parser(
        "validate",
        help="grade the gold and the empty answer of every task, and name those that do not hold",
        description="Grade the gold and the empty patch, or answer, of every task, and name those that do not hold. "
        "Rows of a published set of mathematics or programming that cannot become tasks are counted with the reason; "
        "with --out the others are written as tasks.",
    )
    validate.add_argument(
        "file", metavar="FILE", help="SWE-bench rows, tasks, or a training set: a file, a folder, or hub:OWNER/NAME"
    )
    validate.add_argument("--format", default="auto", metavar="NAME", help="of a training set's rows (by their keys)")
    validate.add_argument("--out", type=Path, metavar="FILE", help="write the rows that hold")
    validate.add_argument(
        "--test-timeout", type=float, default=1_800.0, metavar="S", help="seconds of one run of a task's tests (1800)"
    )
    validate.add_argument("--times", type=_positive, default=3, metavar="N", help="how often each is graded (3)")
    _sandbox_options(validate)
    validate.set_defaults(run=run_validate)

    repositories.register(kinds, sandbox_options=_sandbox_options, positive=_positive)
    traces.register(kinds, sandbox_options=_sandbox_options, positive=_positive)
    audit.register(kinds, sandbox_options=_sandbox_options, positive=_positive)
    certify.register(kinds, sandbox_options=_sandbox_options, positive=_positive)

    export.register(kinds)

    show = kinds.add_parser("show", help="list the tasks of a file, or print one with its hidden parts")
    show.add_argument("file", type=Path, metavar="FILE", help="SWE-bench rows (JSON Lines)")
    show.add_argument("id", nargs="?", metavar="ID", help="an instance_id")
    show.set_defaults(run=run_show)


def run_synthesize(args: argparse.Namespace) -> int:
    import asyncio
    import tempfile

    from ...errors import TaskError
    from ..sandbox.choose import make_backend
    from ..synthesis.ledger import reasons_of
    from ..synthesis.make import synthesize_tree
    from ..synthesis.sources import open_source
    from .terminal import progress_bar, table

    backend = make_backend(args.sandbox)
    with tempfile.TemporaryDirectory(prefix="verigym-source-") as workdir, progress_bar() as tell:
        source = open_source(args.source, Path(workdir), extra=args.extra, tell=tell)
        rows = asyncio.run(
            synthesize_tree(
                source,
                out=args.out,
                limit=args.limit,
                seed=args.seed,
                backend=backend,
                workers=args.workers,
                progress=tell,
                suite_s=args.suite_budget,
                stage_s=args.stage_timeout,
            )
        )
    others = "; ".join(f"{count}: {reason}" for reason, count in reasons_of(args.out).most_common())
    if not rows:
        raise TaskError(f"no bug in {args.source} made a task ({others or 'none was tried'}); {args.out} has no rows")
    table(f"{len(rows)} tasks of {source.name} {source.version}", ("task", "fails", "passes"), map(_summary, rows))
    print(f"wrote {args.out}; environment: Python {source.python}, {', '.join(source.requirements)}")
    if others:
        print(f"bugs that became no task: {others}")
    if share := rows[0].get("test_share"):
        print(
            f"their tests are a share: {share['chosen']} of {share['collected']} tests, in {share['chosen_files']} of "
            f"{share['files']} files, were measured; others may fail at a task's base, or find the bug "
            "(--suite-budget 0 takes all)"
        )
    print(f"check them with: verigym tasks validate {args.out}")
    return 0


def run_validate(args: argparse.Namespace) -> int:
    import asyncio

    from ..datasets.training import load_training_set
    from ..sandbox.choose import make_backend
    from ..synthesis.validate import kept_rows, validate_tasks, write_kept
    from ..synthesis.validate_problems import validate_problems
    from ..task import write_jsonl
    from .terminal import progress_bar, table

    backend = make_backend(args.sandbox)
    found = load_training_set(args.file, row_format=args.format)
    is_swe = all(task.family == "swe" for task in found.tasks)
    settings: dict[str, Any] = {"backend": backend, "times": args.times, "workers": args.workers}
    with progress_bar() as tell:
        checking = (
            validate_tasks(args.file, progress=tell, timeout_s=args.test_timeout, **settings)
            if is_swe
            else validate_problems(found.tasks, progress=tell, **settings)
        )
        checks = asyncio.run(checking)
    kept = kept_rows(checks)
    if args.out:  # first of all: hours of work may lie in it
        if is_swe:
            write_kept(args.file, args.out, checks)
        else:
            write_jsonl(args.out, kept)
    table(
        f"{len(kept)} of {len(checks)} tasks hold ({args.times} times)",
        ("task", "gold", "empty", "verdict"),
        ((check.task_id, check.golds, check.empties, check.problem or "holds") for check in checks),
    )
    if found.left_out:
        print(found.summary())
    flaky = {check.task_id: len(check.quarantined) for check in checks if check.quarantined}
    if flaky:
        print(f"flaky PASS_TO_PASS tests set aside: {', '.join(f'{name} ({count})' for name, count in flaky.items())}")
    left_out = [check.task_id for check in checks if check.problem]
    if left_out:
        print(f"left out: {', '.join(left_out)}")
    if args.out:
        print(f"wrote {args.out}")
    return 1 if left_out and not args.out else 0


def run_show(args: argparse.Namespace) -> int:
    from ...errors import TaskError
    from ..task import read_jsonl
    from .terminal import table

    rows = {str(row.get("instance_id", "?")): row for row in read_jsonl(args.file)}
    if args.id is None:
        table(f"{len(rows)} tasks in {args.file}", ("task", "fails", "passes"), map(_summary, rows.values()))
        return 0
    if args.id not in rows:
        import difflib

        near = difflib.get_close_matches(args.id, rows, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise TaskError(f"{args.file} has no task {args.id!r}{hint}")
    row = rows[args.id]
    for title, key in (("", "problem_statement"), ("patch", "patch"), ("test_patch", "test_patch")):
        print(f"--- {title} ---\n{row.get(key, '')}" if title else row.get(key, ""))
    print("--- FAIL_TO_PASS ---", *_tests(row, "FAIL_TO_PASS"), sep="\n")
    print(f"--- PASS_TO_PASS: {len(_tests(row, 'PASS_TO_PASS'))} tests ---")
    facts = {key: row.get(key) for key in ("repo", "version", "base_commit", "python", "pip_requirements", "archive")}
    print(*(f"{key}: {value}" for key, value in facts.items() if value), sep="\n")
    return 0


def _sandbox_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sandbox",
        type=sandbox_name,
        metavar="NAME",
        default="auto",
        help=f"where tests run: {', '.join(NAMES)} (auto)",
    )
    parser.add_argument("--workers", type=_positive, default=2, metavar="N", help="sandboxes at work at once (2)")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _summary(row: Mapping[str, Any]) -> Sequence[object]:
    return row.get("instance_id", "?"), len(_tests(row, "FAIL_TO_PASS")), len(_tests(row, "PASS_TO_PASS"))


def _tests(row: Mapping[str, Any], key: str) -> Sequence[str]:
    """Test ids of a row: a list, or the JSON text of one."""
    import json

    from ...errors import TaskError

    value = row.get(key) or ()
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise TaskError(f"{row.get('instance_id', 'a row')}: {key} is no JSON list of test ids: {value!r}") from None
