"""What a step of an environment costs beside a bare call of its tool: python benchmarks/environments/step.py

Processor time (of all threads) and wall clock; on a machine that does other work only the first says anything. The
ways take turns.
"""

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


class Clock:
    """Milliseconds of the processor and of the wall since it was made, for each of some steps."""

    def __init__(self) -> None:
        self._processor, self._wall = time.process_time(), time.perf_counter()

    def each(self, steps: int) -> tuple[float, float]:
        processor, wall = time.process_time() - self._processor, time.perf_counter() - self._wall
        return processor / steps * 1e3, wall / steps * 1e3


async def of_loop(actions: str, steps: int) -> tuple[float, float]:
    env = Adder()
    await env.areset(options={"task": TASK})
    clock = Clock()
    for _ in range(steps):
        await env.aact(actions)
    taken = clock.each(steps)
    await env.aclose()
    return taken


def of_gymnasium(actions: str, steps: int) -> tuple[float, float]:
    env = Adder()
    env.reset(options={"task": TASK})
    clock = Clock()
    for _ in range(steps):
        env.step(actions)
    taken = clock.each(steps)
    env.close()
    return taken


def bare(steps: int) -> tuple[float, float]:
    env = Adder()
    clock = Clock()
    for _ in range(steps):
        env.add(1, 2)
    return clock.each(steps)


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
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(args.runs):
        for name, way in ways.items():
            found[name].append(way())
    rows = {}
    print(f"{'':38} processor, ms                wall, ms")
    for name, taken in found.items():
        processor, wall = (sorted(side) for side in zip(*taken, strict=True))
        rows[name] = {"processor_ms": statistics.median(processor), "wall_ms": statistics.median(wall)}
        rows[name] |= {"processor_range_ms": (processor[0], processor[-1]), "wall_range_ms": (wall[0], wall[-1])}
        told = [f"{statistics.median(side):.4f} ({side[0]:.4f} to {side[-1]:.4f})" for side in (processor, wall)]
        print(f"{name:38} {told[0]:28} {told[1]}")
    load = os.getloadavg()[0]
    print(f"load {load:.1f} on {os.cpu_count()} cores, Python {platform.python_version()}")
    if args.out is not None:
        facts = {"load": load, "cores": os.cpu_count(), "python": platform.python_version(), "steps": args.steps}
        args.out.write_text(json.dumps({"ways": rows, **facts}, indent=2))


if __name__ == "__main__":
    main()
