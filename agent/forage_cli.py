"""``verigym forage``: episodes of a policy, kept as data."""

import argparse
import random
from pathlib import Path
from typing import Any

from .options import (
    add_episode_options,
    add_model_option,
    add_policy_option,
    add_sandbox_option,
    budget_of,
    sampling_of,
    seats_of,
)


def register(commands: Any) -> None:
    """Add ``forage`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "forage",
        help="let a policy act on tasks and keep its trajectories as data",
        description="Let a policy act on tasks in sandboxes and keep every episode with its outcome, once. "
        "Interrupted, the same command goes on. Recipes read the file as a source of midtrain.",
    )
    parser.add_argument("env_id", metavar="ENV_ID", help="such as verigym/SWE-v0")
    add_policy_option(parser)
    add_model_option(parser)
    parser.add_argument("--data", type=Path, metavar="FILE", help="tasks (default: the environment's own)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="trajectories (JSON Lines) to write")
    parser.add_argument("--samples", type=int, default=1, metavar="K", help="episodes of each task (1)")
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="tasks, drawn by the seed (all)")
    parser.add_argument("--workers", type=int, default=4, metavar="N", help="episodes at once (4)")
    add_episode_options(parser)
    add_sandbox_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the episodes; 1 where not one could be graded."""
    import asyncio

    from ..envs.cli.terminal import progress_bar, table
    from ..envs.registry.opening import open_env, own_tasks, read_any_tasks
    from ..errors import ConfigError
    from .forage import Forager

    if args.samples < 1 or args.workers < 1 or args.limit < 0:
        raise ConfigError(
            f"--samples {args.samples}, --workers {args.workers} and --limit {args.limit}: at least 1, 1 and 0"
        )
    tasks = read_any_tasks(args.data) if args.data is not None else own_tasks(open_env(args.env_id, {}))
    if args.limit and args.limit < len(tasks):
        tasks = [tasks[place] for place in sorted(random.Random(args.seed).sample(range(len(tasks)), args.limit))]
    source = args.build_policy(args.policy, max_batch=args.workers)
    seats, others = seats_of(args)

    def make_env() -> Any:
        return open_env(args.env_id, {"sandbox": args.sandbox}, source.env_kwargs.get(args.env_id))

    async def forage() -> Any:
        try:
            return await forager.run(tasks, args.out, samples=args.samples)
        finally:
            for one in (source, *others):
                await one.aclose()

    with progress_bar() as tell:
        forager = Forager(
            env_id=args.env_id,
            policy=args.policy,
            sandbox=args.sandbox,
            make_env=make_env,
            policy_for=source.policy_for,
            budget=budget_of(args),
            sampling=sampling_of(args),
            workers=args.workers,
            seats=seats,
            tell=lambda done, wanted: tell("episodes", done, wanted),
        )
        counts = asyncio.run(forage())
    table(f"episodes of {args.policy}", ("outcome", "number"), sorted(counts.items()))
    new = counts["passed"] + counts["failed"]
    if counts:
        print(f"wrote {new} new episodes to {args.out}")
    else:
        print(f"nothing was left to do: {args.out} has what these tasks and settings give")
    return 0 if not counts or counts["passed"] + counts["failed"] + counts["duplicate"] else 1
