"""``verigym eval``: a policy on a suite. Heavy imports wait until it runs."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..agent.options import (
    add_agent_options,
    add_episode_options,
    add_model_option,
    add_policy_option,
    add_sandbox_option,
    add_test_timeout_option,
    add_untrusted_option,
)
from ..terminal import console
from .audit_cli import add_audit_option, check_audit, run_audit, worth
from .data_options import (
    add_against_option,
    add_allow_host_option,
    add_data_options,
    add_ray_option,
    check_against,
    check_families,
    checked_test_timeout,
    load_options_of,
    network_of,
    untrusted_of,
)
from .preset import add_preset_option, fill
from .shots import add_shots_option, shots_identity, shots_of

if TYPE_CHECKING:
    from ..agent.sources import PolicySource
    from ..envs.runs.lock import RunLock
    from .preset import Settings
    from .suites.loading import LoadedSuite
    from .verdict import Verdict


def register(commands: Any) -> None:
    """Add ``eval`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "eval",
        help="measure a policy on a suite: pass@1 with its interval",
        description="Run a policy on every task of a suite and report pass@1 with a 95 % interval.",
        epilog="A DIR that exists is resumed: no sample is repeated or lost. Where a suite has published settings, "
        "they are the defaults; report.json names their sources. verigym eval audit RUN looks at the passes of a run "
        "that ended.",
    )
    parser.add_argument("suite", metavar="SUITE", help="such as math500, or an environment's id; or the word audit")
    parser.add_argument("folder", type=Path, nargs="?", metavar="RUN", help="with audit, the DIR of a run")
    add_data_options(parser)
    add_audit_option(parser)
    add_policy_option(parser)
    add_agent_options(parser)
    add_model_option(parser)
    parser.add_argument("--samples", type=int, metavar="K", help="episodes a task (default: the suite's, else 1)")
    parser.add_argument("--greedy", action="store_true", help="temperature 0, one sample")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N tasks")
    add_episode_options(parser)
    add_sandbox_option(parser)
    add_allow_host_option(parser)
    add_test_timeout_option(parser)
    add_untrusted_option(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="episodes at once (default: by cores and policy)")
    add_ray_option(parser, "run episodes")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write verdicts.jsonl and report.json there")
    parser.add_argument("--save-trajectories", action="store_true", help="write trajectories.jsonl to DIR too")
    parser.add_argument(
        "--select",
        action="store_true",
        help="choose one of the K samples: answers by majority, patches by existing and generated tests; needs --out",
    )
    add_against_option(parser)
    add_preset_option(parser)
    add_shots_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, and write the JSON."""
    import os
    import sys
    import time
    from contextlib import nullcontext
    from dataclasses import replace

    from ..envs.runs.lock import RunLock
    from ..errors import GradingError
    from .pairing import told_pairs
    from .passes import look_at_passes, told_passes
    from .report import build_report, compare_with, report_table, told_comparison, told_failures
    from .report_files import write_report
    from .scaling.report import told_scaling
    from .suites.loading import load_suite
    from .worth_told import told_worth_of

    if args.suite == "audit":
        return run_audit(args)
    _check(args)
    shots = shots_of(args)
    cores = os.cpu_count() or 1
    # A model answers a batch in little more time than one; scripts leave the cores to the sandboxes.
    workers = args.workers or (cores if args.policy in ("gold", "empty") else max(8, cores))
    suite = load_suite(
        args.suite,
        data=args.data,
        limit=args.limit,
        env_kwargs={"sandbox": args.sandbox, **checked_test_timeout(args), **untrusted_of(args), **network_of(args)},
        options=load_options_of(args),
    )
    check_families(args, {task.family for task in suite.tasks})
    source = args.build_policy(args.policy, max_batch=workers, elsewhere=args.ray is not None)
    filled = fill(args, suite.preset, source)
    if told := filled.told():
        print(f"verigym: {told}", file=sys.stderr)
    suite = replace(suite, needed_kwargs=source.env_kwargs, shots=shots)
    settings = _settings(args, suite, source)
    started = time.monotonic()
    with RunLock(args.out) if args.out is not None else nullcontext() as lock:
        try:
            verdicts = _evaluate(args, suite, source, settings, filled, workers, lock)
        except KeyboardInterrupt:
            if args.out is not None:
                print(
                    f"verigym: the verdicts so far are in {args.out}; the same command goes on from them",
                    file=sys.stderr,
                )
            raise
        report = build_report(args.suite, args.policy, verdicts, seconds=time.monotonic() - started, settings=settings)
        report["sources"], report["cut"] = filled.sources, filled.cut
        if args.select:
            report["scaling"] = _select(args, suite, verdicts, filled, workers)
        if args.against is not None:
            report["against"] = compare_with(verdicts, args.against)
            if args.out is not None and suite.make_env(suite.tasks[0]).compares:
                report["pairs"] = _compare(args, suite, source)
        if args.audit is not None:
            report["worth"] = worth(args.audit, verdicts, args.against)
        if args.out is not None:
            if any(task.family == "swe" for task in suite.tasks):
                report["passes"] = look_at_passes(args.out, suite.tasks)
            write_report(args.out, report)
    console().print(report_table(report))
    for told in (told_passes(report.get("passes") or {"resolved": 0}), told_worth_of(report)):
        if told:
            console().print(told, highlight=False, markup=False, soft_wrap=True)
    if args.select:
        console().print(told_scaling(report["scaling"]), highlight=False, soft_wrap=True)
    if args.against is not None:
        console().print(told_comparison(report["against"]), highlight=False, soft_wrap=True)
    if "pairs" in report:
        console().print(told_pairs(report["pairs"]), highlight=False, soft_wrap=True)
    told = told_failures(verdicts)
    if told and report["n"]:
        print(f"verigym: {told}", file=sys.stderr)
    if not report["n"]:
        raise GradingError(f"none of {len(verdicts)} samples could be graded; the first: {verdicts[0].detail}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Raises ConfigError where options do not go together or are out of range."""
    from ..errors import ConfigError

    if args.folder is not None:
        raise ConfigError(f"{args.folder}: a second word is of verigym eval audit RUN; a suite takes --data FILE")
    if args.save_trajectories and args.out is None:
        raise ConfigError("--save-trajectories needs --out DIR to write them to")
    if args.chat_template is not None and args.ray is not None:
        raise ConfigError(
            "--chat-template is not brought to a cluster's machines; write the template into the checkpoint's folder, "
            "as chat_template.jinja"
        )
    if args.select and args.out is None:
        raise ConfigError("--select needs --out DIR, where the samples are recorded")
    for name in ("limit", "workers"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is {value}; at least 1 is needed")
    check_against(args)
    check_audit(args)


def _evaluate(
    args: argparse.Namespace,
    suite: "LoadedSuite",
    source: "PolicySource",
    settings: dict[str, Any],
    filled: "Settings",
    workers: int,
    lock: "RunLock | None",
) -> "list[Verdict]":
    import asyncio
    from contextlib import ExitStack
    from dataclasses import replace

    from ..agent.options import agent_of, sampling_of, seats_of
    from .live import LiveProgress
    from .preset import budget
    from .run import evaluate

    act, elsewhere = agent_of(args), None

    async def work(told: "Callable[[Verdict], None]") -> "list[Verdict]":
        seats, others = ({}, [elsewhere]) if elsewhere is not None else seats_of(args)
        try:
            return await evaluate(
                suite.tasks,
                suite.make_env,
                source.policy_for,
                samples=args.samples,
                budget=budget(args, filled),
                sampling=sampling_of(args),
                greedy=args.greedy,
                concurrency=workers,
                out=args.out,
                settings=settings,
                save_trajectories=args.save_trajectories,
                progress=lambda verdict, _: told(verdict),
                lock=lock,
                act=elsewhere or act,
                seats=seats,
            )
        finally:
            for one in (source, *others):
                await one.aclose()

    with ExitStack() as inside:
        if args.ray is not None:
            elsewhere, most = inside.enter_context(
                args.evaluating_on_cluster(
                    args.ray,
                    replace(suite, tasks=()).make_env,  # it travels to every worker
                    source,
                    act,
                    speakers=args.model,
                    attention=args.attention,
                    seconds=args.timeout,
                    out=args.out,
                )
            )
            workers = args.workers or most
        progress = inside.enter_context(LiveProgress("evaluating", len(suite.tasks) * args.samples))
        return asyncio.run(work(progress.told))


def _compare(args: argparse.Namespace, suite: "LoadedSuite", source: "PolicySource") -> dict[str, Any]:
    """What the environment says of this run's episodes beside those of the other one."""
    import asyncio

    from ..agent.options import sampling_of, seats_of
    from .pairing import compare_runs

    async def work() -> dict[str, Any]:
        seats, others = seats_of(args)
        options = {"first": args.against, "second": args.out, "sampling": sampling_of(args), "seats": seats}
        try:
            return await compare_runs(suite.tasks, suite.make_env, source.policy_for, **options)
        finally:
            for one in others:
                await one.aclose()

    return asyncio.run(work())


def _select(
    args: argparse.Namespace, suite: "LoadedSuite", verdicts: "list[Verdict]", filled: "Settings", workers: int
) -> dict[str, Any]:
    """What choosing among the samples comes to; a policy writes the tests where patches are chosen."""
    import asyncio

    from ..agent.options import sampling_of
    from ..envs.sandbox.choose import make_backend
    from ..errors import ConfigError
    from .preset import budget
    from .scaling.report import scaling_report
    from .scaling.run import recorded_predictions, select_patches, vote, write_tests
    from .store import write_lines

    families = {task.family for task in suite.tasks}
    predictions = recorded_predictions(args.out)
    if families == {"math"}:
        return scaling_report(verdicts, vote(predictions, workers=workers))
    if families != {"swe"}:
        raise ConfigError(f"--select knows answers and patches; suite {suite.name!r} has {', '.join(sorted(families))}")

    async def work() -> dict[str, int]:
        source = args.build_policy(args.policy, max_batch=workers)
        try:
            tests = await write_tests(
                suite.tasks,
                source.policy_for,
                samples=args.samples,
                budget=budget(args, filled),
                sampling=sampling_of(args),
                sandbox=args.sandbox,
                workers=workers,
                out=args.out,
            )
        finally:
            await source.aclose()
        backend = make_backend(args.sandbox)
        chosen, told = await select_patches(backend, suite.tasks, predictions, verdicts, tests, workers=workers)
        write_lines(args.out / "selection.jsonl", told)
        return chosen

    return scaling_report(verdicts, asyncio.run(work()))


def _settings(args: argparse.Namespace, suite: "LoadedSuite", source: "PolicySource") -> dict[str, Any]:
    """What makes two runs the same run; the number of samples and tasks may grow, so they are not part of it."""
    from ..agent.options import agent_settings
    from ..envs.datasets.folders import digest_of

    return {
        "suite": suite.name,
        "data_sha256": digest_of(args.data),
        "release": args.release,
        "since": args.since,
        "until": args.until,
        "policy": source.name,
        "policy_identity": dict(source.identity),
        **({"models": sorted(args.model)} if args.model else {}),
        "temperature": 0.0 if args.greedy else args.temperature,
        "top_p": args.top_p,
        "seed": args.seed,
        "max_turns": args.max_turns,
        "max_tokens": args.max_tokens,
        "timeout_s": args.timeout,
        "sandbox": args.sandbox,
        "trajectories": args.save_trajectories,
        **agent_settings(args),
        **checked_test_timeout(args),
        **untrusted_of(args),
        **network_of(args),
        **shots_identity(suite.shots),
    }
