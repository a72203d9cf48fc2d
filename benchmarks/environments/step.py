"""What a step of an environment costs beside a bare call of its tool: python benchmarks/environments/step.py"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from pathlib import Path

from verigym.envs.core import ToolEnv
from verigym.envs.task import Task
from verigym.envs.tools.spec import tool
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import ToolCall

TASK = Task(id="t", family="bench", prompt="Add.")


class Adder(ToolEnv):
    @tool
    def add(self, a: int, b: int) -> str:
        """Adds, on the episode's thread."""
        return str(a + b)

    @tool
    async def aadd(self, a: int, b: int) -> str:
        """Adds, on the loop."""
        return str(a + b)

    def reply(self, task, message):
        return "go on"

    def score(self, task, submission):
        return True


def action(name: str) -> str:
    return encode_calls([ToolCall(name=name, arguments={"a": 1, "b": 2})])


async def of_loop(actions: str, steps: int) -> float:
    env = Adder()
    await env.areset(options={"task": TASK})
    started = time.perf_counter()
    for _ in range(steps):
        await env.aact(actions)
    taken = time.perf_counter() - started
    await env.aclose()
    return taken / steps * 1e3


def of_gymnasium(actions: str, steps: int) -> float:
    env = Adder()
    env.reset(options={"task": TASK})
    started = time.perf_counter()
    for _ in range(steps):
        env.step(actions)
    taken = time.perf_counter() - started
    env.close()
    return taken / steps * 1e3


def bare(steps: int) -> float:
    env = Adder()
    started = time.perf_counter()
    for _ in range(steps):
        env.add(1, 2)
    return (time.perf_counter() - started) / steps * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    ways = {
        "bare call": lambda: bare(args.steps),
        "asynchronous tool, loop": lambda: asyncio.run(of_loop(action("aadd"), args.steps)),
        "synchronous tool, loop": lambda: asyncio.run(of_loop(action("add"), args.steps)),
        "reply, loop": lambda: asyncio.run(of_loop("hello", args.steps)),
        "synchronous tool, Gymnasium's step": lambda: of_gymnasium(action("add"), args.steps),
    }
    rows = {}
    for name, way in ways.items():
        found = sorted(way() for _ in range(args.runs))
        rows[name] = {"median_ms": statistics.median(found), "least_ms": found[0], "most_ms": found[-1]}
        print(f"{name:38} {rows[name]['median_ms']:.4f} ms  ({found[0]:.4f} to {found[-1]:.4f})")
    load = os.getloadavg()[0]
    print(f"load {load:.1f} on {os.cpu_count()} cores, Python {platform.python_version()}")
    if args.out is not None:
        facts = {"load": load, "cores": os.cpu_count(), "python": platform.python_version(), "steps": args.steps}
        args.out.write_text(json.dumps({"ways": rows, **facts}, indent=2))


if __name__ == "__main__":
    main()
