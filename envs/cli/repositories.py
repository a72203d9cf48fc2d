"""``verigym tasks mine | build-images | decontaminate | parity``: real repositories, their images, their rows."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HARBOR = "harbor:"


def register(kinds: Any, *, sandbox_options: Any, positive: Any) -> None:
    """Add the commands to the subparsers of ``verigym tasks``."""
    _add_mine(kinds, sandbox_options, positive)
    _add_build_images(kinds, positive)
    _add_decontaminate(kinds)
    _add_parity(kinds, positive)


def _add_mine(kinds: Any, sandbox_options: Any, positive: Any) -> None:
    mine = kinds.add_parser(
        "mine",
        help="turn the bug fixes of a git history into tasks",
        description="Turn commits that mend a bug and bring its tests into SWE-bench rows. Tests run before and "
        "after; a row is kept where some turn from fail to pass, gold is graded 1 and nothing 0.",
    )
    mine.add_argument("repository", type=Path, metavar="REPO", help="a clone with its history, bare or not")
    mine.add_argument("--out", type=Path, required=True, metavar="FILE", help="the rows (JSON Lines) to write")
    mine.add_argument("--name", default="", metavar="OWNER/NAME", help="the repository's name in the rows")
    mine.add_argument("--limit", type=positive, default=50, metavar="N", help="most tasks to write (50)")
    mine.add_argument("--commits", type=positive, default=200, metavar="N", help="most commits to try (200)")
    mine.add_argument("--any-message", action="store_true", help="try commits whose message speaks of no bug, too")
    mine.add_argument("--times", type=positive, default=2, metavar="N", help="how often each row is validated (2)")
    mine.add_argument("--with", dest="extra", action="append", default=[], metavar="REQUIREMENT", help="for the tests")
    sandbox_options(mine)
    mine.set_defaults(run=run_mine)


def _add_build_images(kinds: Any, positive: Any) -> None:
    images = kinds.add_parser(
        "build-images",
        help="build a container image for every row, and complete the rows",
        description="Build an instance image for every row from a base image, pinned wheels and the repository at "
        "base_commit, without a registry. Dockerfiles and archives are left beside the rows.",
    )
    images.add_argument("file", metavar="ROWS", help="SWE-bench rows with pip_requirements, or harbor:FOLDER of tasks")
    images.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the completed rows to write; of Harbor tasks an archive of their images, for `verigym images add`",
    )
    images.add_argument("--clones", type=Path, action="append", default=[], metavar="DIR", help="folder of clones")
    images.add_argument("--base", metavar="IMAGE", help="with git and python3 (default: made with debootstrap)")
    images.add_argument("--workers", type=positive, default=2, metavar="N", help="images built at once (2)")
    images.add_argument(
        "--as-published",
        action="store_true",
        help="write SWE-bench's own fields alone: such rows are graded by their eval_script, as published images are",
    )
    images.add_argument(
        "--verified",
        action="store_true",
        help="rows of SWE-bench itself: images like the published ones, under their names; the rows stay as they are",
    )
    images.add_argument(
        "--repository",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="with --verified: a clone, bare or not, with the history of a repository; may be repeated",
    )
    images.add_argument(
        "--environments", type=Path, metavar="FILE", help="with --verified: a table of environments (our own)"
    )
    images.add_argument(
        "--force-build",
        action="store_true",
        help="with harbor:FOLDER: build the Dockerfile of tasks that name an image too, under that name, not pull it",
    )
    images.set_defaults(run=run_build_images)


def _add_decontaminate(kinds: Any) -> None:
    clean = kinds.add_parser("decontaminate", help="leave out rows that an evaluation set could be learnt from")
    clean.add_argument("file", type=Path, metavar="ROWS", help="training rows: of repositories, mathematics, programs")
    clean.add_argument(
        "--against", type=Path, action="append", required=True, metavar="ROWS", help="a suite's rows; may be repeated"
    )
    clean.add_argument("--dropped", type=Path, metavar="FILE", help="also write what was left out, why, and its match")
    clean.add_argument("--out", type=Path, required=True, metavar="FILE", help="the rows to keep")
    clean.add_argument("--by-problem", action="store_true", help="keep other problems of the evaluation's repositories")
    clean.set_defaults(run=run_decontaminate)


def _add_parity(kinds: Any, positive: Any) -> None:
    parity = kinds.add_parser(
        "parity",
        help="grade with swebench's own run_instance too, and report every disagreement",
        description="Grade the gold and the empty patch of every row, or predictions, with verigym and with swebench's "
        "run_instance in Docker, and print where they differ, and by repository how many rows these patches resolve. "
        "Rows whose image is not there are left out, with --here.",
    )
    parity.add_argument("file", type=Path, metavar="ROWS", help="SWE-bench rows with image and eval_script")
    parity.add_argument(
        "--predictions", type=Path, metavar="FILE", help="instance_id, model_patch (default: gold, empty)"
    )
    parity.add_argument("--limit", type=positive, metavar="N", help="only the first N rows")
    parity.add_argument("--here", action="store_true", help="only rows whose image this engine has")
    parity.add_argument(
        "--compared",
        type=_natural,
        metavar="N",
        help="swebench grades the first N rows of each repository, none at 0 (default: all)",
    )
    parity.add_argument("--timeout", type=positive, default=600, metavar="S", help="seconds of the tests (600)")
    parity.add_argument("--workers", type=positive, default=2, metavar="N", help="patches graded at once (2)")
    parity.set_defaults(run=run_parity)


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return number


def run_mine(args: argparse.Namespace) -> int:
    import asyncio

    from ...errors import TaskError
    from ..sandbox.choose import make_backend
    from ..synthesis.mine import mine
    from .terminal import progress_bar, table

    backend = make_backend("local" if args.sandbox == "auto" else args.sandbox)
    with progress_bar() as tell:
        mined = asyncio.run(
            mine(
                args.repository,
                out=args.out,
                backend=backend,
                repo=args.name,
                extra=args.extra,
                limit=args.limit,
                max_commits=args.commits,
                any_message=args.any_message,
                times=args.times,
                workers=args.workers,
                progress=tell,
            )
        )
    rows = [one.row for one in mined if one.row is not None]
    table(
        f"{len(rows)} tasks of {len(mined)} commits of {args.repository}",
        ("commit", "task", "why not"),
        ((one.commit[:10], one.row["instance_id"] if one.row else "-", one.problem[:120]) for one in mined),
    )
    if not rows:
        raise TaskError(f"no commit of {args.repository} turned a test from fail to pass; {args.out} has no rows")
    print(f"wrote {args.out}; build images for Docker with: verigym tasks build-images {args.out} --out IMAGES.jsonl")
    return 0


def run_build_images(args: argparse.Namespace) -> int:
    from ...errors import ConfigError, TaskError
    from ..datasets.files import read_rows
    from ..sandbox.images import ensure_base_image
    from ..synthesis.build_images import as_published, build_images
    from ..task import write_jsonl
    from .terminal import progress_bar

    if args.file.startswith(HARBOR):
        return _build_harbor_images(args)
    if args.force_build:
        raise ConfigError(f"--force-build is of harbor:FOLDER, and {args.file} is a file of rows; leave it out")
    rows = [row.value for row in read_rows(args.file)]
    if not rows:
        raise TaskError(f"{args.file} has no rows; there is no image to build")
    if args.verified:
        return _build_verified(args, rows)
    client = docker_client()
    with progress_bar() as tell:
        if args.base is None:
            tell("base image: made with debootstrap where it is not there yet", 0, 0)
        base = args.base or ensure_base_image(client)
        built = build_images(
            rows,
            folder=Path(args.file).parent,
            out=args.out,
            client=client,
            base=base,
            clones=args.clones,
            workers=args.workers,
            progress=tell,
        )
    write_jsonl(args.out, [as_published(row) for row in built] if args.as_published else built)
    print(
        f"wrote {args.out} ({len(built)} images); check them with: verigym tasks validate {args.out} --sandbox docker"
    )
    return 0


def _build_verified(args: argparse.Namespace, rows: Sequence[Any]) -> int:
    from ...errors import TaskError
    from ..synthesis.rows import archives_of
    from ..synthesis.verified_images import ENVIRONMENTS, build_verified_images, load_environments
    from ..task import write_jsonl
    from .terminal import progress_bar, table

    environments = load_environments(args.environments or ENVIRONMENTS)
    client = docker_client()
    failures: list[tuple[str, str]] = []
    with progress_bar() as tell:
        built = build_verified_images(
            rows,
            repositories=args.repository,
            client=client,
            notes=archives_of(args.out),
            environments=environments,
            base=args.base,
            progress=tell,
            failed=lambda name, why: failures.append((name, why)),
        )
    if failures:
        table(f"{len(failures)} of {len(rows)} images could not be built", ("task", "why"), failures)
    if not built:
        raise TaskError("no image could be built; the table says why")
    write_jsonl(args.out, built)
    print(f"wrote {args.out} ({len(built)} rows); check them with: verigym tasks validate {args.out} --sandbox docker")
    return 1 if failures else 0


def _build_harbor_images(args: argparse.Namespace) -> int:
    from ...errors import SandboxError
    from ..datasets.harbor import folder_of, harbor_rows, image_of
    from ..datasets.harbor_config import read_config
    from ..harbor.images import build_image, pull_image
    from ..sandbox.image_import import save_images
    from ..task import Task
    from .terminal import progress_bar, table

    tasks = [Task.from_json(row.value) for row in harbor_rows(args.file)]
    client = docker_client()
    names, failures = [], []
    with progress_bar() as tell:
        for number, task in enumerate(tasks):
            tell("images", number, len(tasks))
            folder = folder_of(task)
            config = read_config(folder)
            name = image_of(folder, config)
            try:
                if config.environment.docker_image and not args.force_build:
                    pull_image(client, folder, name)
                else:
                    build_image(client, folder, name, config.environment.build_timeout_sec)
                names.append(name)
            except SandboxError as error:
                failures.append((task.id, str(error)))
    if failures:
        table(f"{len(failures)} of {len(tasks)} tasks have no image", ("task", "why"), failures)
    if not names:
        raise SandboxError("no image could be had; the table says why")
    save_images(client.api, names, args.out)
    print(f"wrote {args.out} ({len(set(names))} images of {len(names)} tasks); where there is no engine:")
    print(f"verigym images add {args.out}")
    return 1 if failures else 0


def run_decontaminate(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from ..datasets.decontaminate import decontaminate
    from ..datasets.files import read_rows
    from ..task import write_jsonl
    from .terminal import table

    rows = [row.value for row in read_rows(args.file)]
    held = [row.value for path in args.against for row in read_rows(path)]
    kept, dropped = decontaminate(rows, held, by_repository=not args.by_problem)
    write_jsonl(args.out, kept)
    if args.dropped:
        write_jsonl(args.dropped, (asdict(drop) for drop in dropped))
    counts = {reason: sum(drop.reason == reason for drop in dropped) for reason in {drop.reason for drop in dropped}}
    table(f"{len(dropped)} of {len(rows)} rows left out", ("for its", "rows"), sorted(counts.items()))
    print(f"wrote {args.out} ({len(kept)} rows)")
    return 0


def run_parity(args: argparse.Namespace) -> int:
    import asyncio

    from ...errors import TaskError
    from ..datasets.swe import row_of
    from ..synthesis.engine_images import exists
    from ..synthesis.parity import compare, count, disagreements, pairs_of
    from .terminal import progress_bar, table

    pairs = pairs_of(args.file, args.predictions, limit=args.limit)
    client = docker_client()
    if args.here:
        pairs = [pair for pair in pairs if exists(client, row_of(pair.task).image)]
    if not pairs:
        raise TaskError(
            f"{args.file} has no row whose image is here; verigym tasks build-images --verified builds them"
        )
    settings: dict[str, Any] = {"timeout_s": args.timeout, "workers": args.workers, "compared_rows": args.compared}
    with progress_bar() as tell:
        results = asyncio.run(compare(pairs, progress=tell, **settings))
    table(
        f"{len(results)} gradings by verigym and swebench",
        ("task", "patch", "verigym", "swebench", "seconds", "swebench's"),
        (
            (one.task_id, one.kind, one.ours, one.theirs, f"{one.our_seconds:.1f}", f"{one.their_seconds:.1f}")
            for one in results
        ),
    )
    if not args.predictions:
        table(
            "by repository",
            ("repository", "rows", "gold resolves", "empty resolves", "patches compared", "that differ", "minutes"),
            (
                (one.repo, one.rows, one.gold, one.empty, one.compared, one.differ, f"{one.minutes:.1f}")
                for one in count(results)
            ),
        )
    differ = disagreements(results)
    for one in differ:
        print(f"{one.task_id}, {one.kind}: {one.detail}")
    print(f"{len(differ)} disagreements")
    return 1 if differ else 0


def docker_client() -> Any:
    """A client of the engine that the environment names.

    Raises:
        SandboxError: no engine answers.
    """
    import docker
    from docker.errors import DockerException

    from ...errors import SandboxError

    try:
        client = docker.from_env(timeout=600)
        client.ping()
    except DockerException as error:
        told = " ".join(str(error).split())[:200]
        raise SandboxError(f"no Docker engine answers ({told}); start one, or set DOCKER_HOST") from None
    return client
