"""``verigym mcp``: an episode's tools for an agent that speaks MCP. Heavy imports wait until it runs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...rewards.score import Score
    from ..core import ToolEnv
    from ..task import Task
    from .serve import EpisodeTools


def register(commands: Any) -> None:
    """Add ``mcp`` to the commands."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "mcp",
        help="serve an episode's tools to an agent that speaks MCP",
        description="Begin an episode, print its task on standard error, and serve the environment's tools: on "
        "standard input and output, or over HTTP. The score is printed when the agent has handed in its work or left.",
    )
    parser.add_argument("env_id", metavar="ENV_ID", help="such as verigym/SWE-v0, or MODULE:ID of a package")
    parser.add_argument("--task", metavar="ID", help="of the task (default: the first)")
    parser.add_argument("--data", type=Path, metavar="FILE", help="tasks (default: the environment's own)")
    parser.add_argument("--sandbox", default="auto", help="where code runs: auto, docker, local or unsafe")
    parser.add_argument(
        "--http", type=int, metavar="PORT", help="serve http://127.0.0.1:PORT/mcp until it is handed in"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve one episode; its score goes to standard error."""
    import asyncio

    from ...errors import TaskError
    from ..registry.opening import open_env, own_tasks, read_any_tasks

    env = open_env(args.env_id, {"sandbox": args.sandbox})
    tasks = read_any_tasks(args.data) if args.data is not None else own_tasks(env)
    chosen = [task for task in tasks if args.task in (None, task.id)]
    if not chosen:
        raise TaskError(f"no task {args.task!r} among {len(tasks)}; the first is {tasks[0].id if tasks else None!r}")
    score = asyncio.run(_serve(env, chosen[0], args.http))
    _say(f"verigym: reward {score.value:.3g}, {'passed' if score.passed else 'not passed'}: {score.detail}")
    return 0


async def _serve(env: "ToolEnv", task: "Task", port: int | None) -> "Score":
    from .serve import EpisodeTools, serve_stdio

    try:
        _, info = await env.areset(options={"task": task})
        _say("\n\n".join(message.content for message in info["messages"]))
        tools = EpisodeTools(env)
        await (serve_stdio(tools) if port is None else _serve_http(tools, port))
        return await (env.afinish() if tools.ended is None else env.ascore(tools.ended.submission))
    finally:
        await env.aclose()


async def _serve_http(tools: "EpisodeTools", port: int) -> None:
    import asyncio

    import uvicorn

    from .serve import http_app

    async with http_app(tools) as app:
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, lifespan="off", log_level="warning"))
        serving = asyncio.create_task(server.serve())
        while tools.ended is None and not serving.done():
            await asyncio.sleep(0.1)
        server.should_exit = True
        await serving


def _say(text: str) -> None:
    import sys

    print(text, file=sys.stderr, flush=True)
