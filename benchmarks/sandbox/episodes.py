"""What an episode costs without a model: gold and empty policies and a grade on a small repository, and 32 at once.

    python benchmarks/sandbox/episodes.py [--repeat R] [--against CHECKOUT] [--at-once] [--out FILE]

Processor seconds are those of a control group that holds every process of the sandboxes (needs root and cpuacct or
cgroup v2); what one process counts of its children leaves out sandboxes, which end by being killed. CHECKOUT is another
tree of verigym (git worktree add), measured in turn with this one, each in a process of its own. "tests" is pytest
alone on the same files in the same environment, outside of any sandbox: its start and its tests.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPISODES, AT_ONCE = 32, 16
ELSEWHERE = """import runpy, sys, verigym
sys.argv[0] = sys.argv.pop(1)
verigym.__path__[:] = [sys.argv.pop(1)]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Meter:
    """Processor seconds of this process and of all that it has started since."""

    def __init__(self):
        for place, usage, unit in (("cpuacct", "cpuacct.usage", 1e9), ("", "cpu.stat", 1e6)):
            self._folder = Path("/sys/fs/cgroup", place, f"verigym-meter-{os.getpid()}")
            self._usage, self._unit = self._folder / usage, unit
            try:
                self._folder.mkdir()
                (self._folder / "cgroup.procs").write_text(str(os.getpid()))
                self()
                return
            except OSError as error:
                problem = error
        sys.exit(f"no control group can be made ({problem}); run as root, or in `systemd-run --scope -p Delegate=yes`")

    def __call__(self):
        words = self._usage.read_text().split()
        return int(words[words.index("usage_usec") + 1] if "usage_usec" in words else words[0]) / self._unit


async def play(env, task, messages):
    from verigym.model.chat.actions import encode_calls

    await env.areset(options={"task": task})
    for message in messages:
        step = await env.astep(encode_calls(message.calls))
    return step[1]


async def measure(at_once):
    """{what: (processor seconds, wall seconds)} of one turn."""
    from verigym.envs.datasets.swe import row_of
    from verigym.envs.datasets.swe_examples import example_tasks
    from verigym.envs.sandbox.choose import make_backend
    from verigym.envs.swe.env import SWEEnv
    from verigym.envs.swe.grading import grade_patch

    meter, backend, (task, _) = Meter(), make_backend("local"), example_tasks()
    env = SWEEnv(sandbox=backend, tasks=[task])
    found = {}

    async def note(name, work, wanted):
        used, began = meter(), time.perf_counter()
        got = await work()
        await asyncio.sleep(0.2)  # what is killed takes a moment to be gone
        found[name] = meter() - used, time.perf_counter() - began - 0.2
        assert got == wanted, (name, got)

    async def grade():
        return (await grade_patch(backend, task, row_of(task).patch))[0].value

    for _ in range(3):  # the first ones of a task are others
        await play(env, task, env.gold(task))
    await note("gold", lambda: play(env, task, env.gold(task)), 1.0)
    await note("empty", lambda: play(env, task, env.empty(task)), 0.0)
    await note("grade", grade, 1.0)
    if at_once:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one():
            async with slots:
                mine = SWEEnv(sandbox=backend, tasks=[task])
                return await play(mine, task, mine.gold(task))

        async def many():
            return sum(await asyncio.gather(*(one() for _ in range(EPISODES))))

        await note(f"{EPISODES} gold, {AT_ONCE} at once", many, float(EPISODES))
    await note("tests", lambda: bare(task), 1)
    return found


async def bare(task):
    """pytest alone on the task's files with the gold patch; 1 where its tests pass."""
    from verigym.envs.datasets.swe import row_of
    from verigym.envs.sandbox.python import python_environment

    row = row_of(task)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["tar", "-xf", row.archive, "-C", folder], check=True)
        subprocess.run(["git", "apply", "-"], cwd=folder, input=row.patch + row.test_patch, text=True, check=True)
        python = python_environment(row.pip_requirements or ("pytest==8.3.4",)).python
        command = [python, "-s", "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdout=subprocess.DEVNULL, env=dict(os.environ, PYTHONPATH=".")
        )
        return int(await process.wait() == 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--turn", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turn:
        print(json.dumps(asyncio.run(measure(args.at_once))))
        return
    trees = {"verigym": None, **({"against": args.against} if args.against else {})}
    taken, load = {}, os.getloadavg()[0]
    for _ in range(args.repeat):
        for name, tree in trees.items():
            command = [sys.executable, __file__, "--turn", *(["--at-once"] if args.at_once else [])]
            if tree is not None:  # what is imported as verigym is that tree
                command[1:2] = ["-c", ELSEWHERE, __file__, str(tree)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            for what, pair in json.loads(done.stdout.splitlines()[-1]).items():
                taken.setdefault(what, {}).setdefault(name, []).append(pair)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {load:.1f} to {os.getloadavg()[0]:.1f}"
    print(machine)
    facts = {"machine": machine, "python": platform.python_version(), "n": args.repeat, "seconds": {}}
    for what, ways in taken.items():
        for name, pairs in ways.items():
            used, wall = zip(*pairs)
            row = {
                "processor": statistics.median(used),
                "low": min(used),
                "high": max(used),
                "wall": statistics.median(wall),
            }
            facts["seconds"].setdefault(what, {})[name] = row
            spread = f"{row['low']:.2f} to {row['high']:.2f}, n {len(used)}"
            print(
                f"{what:24} {name:8} {row['processor']:7.2f} processor s ({spread}), {row['wall']:7.2f} s of wall clock"
            )
    if args.out:
        args.out.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
