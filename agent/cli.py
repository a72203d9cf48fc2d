"""``verigym rollout``: one episode, printed. Heavy imports wait until it runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..terminal import console as make_console
from .options import (
    add_agent_options,
    add_episode_options,
    add_model_option,
    add_policy_option,
    add_sandbox_option,
    agent_of,
    budget_of,
    sampling_of,
    seats_of,
)

if TYPE_CHECKING:
    from ..envs.core import ToolEnv
    from ..envs.task import Task
    from .sources import PolicySource
    from .trajectory import Trajectory


def register(commands: Any) -> None:
    """Add ``rollout`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "rollout",
        help="run one episode and print it",
        description="Run one episode of an environment and print what was said, called, answered and scored.",
    )
    parser.add_argument("env_id", metavar="ENV_ID", help="such as verigym/SWE-v0, or MODULE:ID of a package")
    add_policy_option(parser)
    add_agent_options(parser)
    add_model_option(parser)
    parser.add_argument("--task", metavar="ID", help="of the task (default: one drawn with the seed)")
    parser.add_argument("--data", type=Path, metavar="FILE", help="tasks (default: the environment's own)")
    add_episode_options(parser)
    add_sandbox_option(parser)
    parser.add_argument("--max-lines", type=int, default=60, metavar="N", help="of one message (default: 60)")
    parser.add_argument("--json", action="store_true", help="print the trajectory as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the episode and print it; 1 where the infrastructure failed."""
    import json
    import sys
    from contextlib import redirect_stdout

    if not args.json:
        trajectory = _played(args)
        _print(trajectory, args.max_lines)
    else:
        with redirect_stdout(sys.stderr):  # what an environment prints is no JSON
            trajectory = _played(args)
        print(json.dumps(trajectory.to_json()))
    return 1 if trajectory.is_infrastructure_failure else 0


def _played(args: argparse.Namespace) -> "Trajectory":
    import asyncio

    from ..envs.registry.opening import open_env, own_tasks, read_any_tasks

    env = open_env(args.env_id, {"sandbox": args.sandbox})
    tasks = read_any_tasks(args.data) if args.data is not None else own_tasks(env)
    task = choose_task(tasks, args.task, args.seed)
    source = args.build_policy(args.policy, max_batch=1)
    if args.env_id in source.env_kwargs:
        env = open_env(args.env_id, {"sandbox": args.sandbox}, source.env_kwargs[args.env_id])
    return asyncio.run(_episode(env, source, task, args))


def choose_task(tasks: "Sequence[Task]", task_id: str | None, seed: int) -> "Task":
    """The task of that id, or one drawn with the seed.

    Raises:
        TaskError: there is no task, or none of that id.
    """
    import difflib
    import random

    from ..errors import TaskError

    if not tasks:
        raise TaskError("there is no task to choose from; give --data FILE with at least one")
    if task_id is None:
        return random.Random(seed).choice(tasks)
    for task in tasks:
        if task.id == task_id:
            return task
    near = difflib.get_close_matches(task_id, [task.id for task in tasks], n=3, cutoff=0.0)
    raise TaskError(f"no task {task_id!r} among {len(tasks)}; the nearest: {', '.join(near)}")


async def _episode(env: "ToolEnv", source: "PolicySource", task: "Task", args: argparse.Namespace) -> "Trajectory":
    from .seeds import SeededPolicy

    seats, others = seats_of(args)
    try:
        policy = SeededPolicy(source.policy_for(env, task), task.id)
        act = agent_of(args)
        return await act(env, policy, task, budget=budget_of(args), sampling=sampling_of(args), seats=seats)
    finally:
        for one in (source, *others):
            await one.aclose()


def _print(trajectory: "Trajectory", max_lines: int) -> None:
    from rich.text import Text

    from .transcript import STYLES, episode_lines

    console = make_console()
    if not console.is_terminal:
        for _, line in episode_lines(trajectory, max_lines=max_lines):
            print(line)
        return
    for kind, line in episode_lines(trajectory, max_lines=max_lines):
        console.print(Text(line, style=STYLES[kind]))
