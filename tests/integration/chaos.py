"""A recipe on three Ray nodes of this machine, undisturbed, and again while one of its parts is killed now and then.

    python -m tests.integration.chaos --steps 60 --every 60 --out chaos.json

Killed are, in turn, an episode worker, an engine's server, a rank, a machine, the controller, an engine's actor. Of the
two runs it says: the steps, whether their losses agree (they do only where every prompt was trained once, on the very
episodes), the seconds, and what is left of the disturbed one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .machines import CLUSTER, Machines, titles, with_variable
from .small_recipe import CODE, LEARNED, LEARNING, metrics

PARTS = ("ray::EpisodeWorker", " serve ", "ray::TrainerRank", "machine", "ray::Controller", "ray::Engine")


def recipe_text(steps: int) -> str:
    text = f'name = "chaos"\nepisode_seconds = 3600\nsave_seconds = 0\n{CODE}{LEARNING}{CLUSTER.format(restarts=1000)}'
    return text.replace("steps = 4\n\n[rl.train]", f"steps = {steps}\n\n[rl.train]")


def rows_in(out: Path) -> int:
    told = out / "rl" / "metrics.jsonl"
    return told.read_text().count("\n") if told.exists() else 0


def run(machines: Machines, recipe: Path, out: Path, every: float, limit: float) -> dict[str, Any]:
    """One run; killing begins with its first step. ``every`` 0 kills nothing."""
    command = [sys.executable, "-m", "verigym", "train", str(recipe), "--out", str(out), "--ray", machines.address]
    killed: list[tuple[float, str]] = []
    began = time.monotonic()
    first = None
    with (out.parent / f"{out.name}.log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        due, turn = None, 0
        while running.poll() is None:
            now = time.monotonic()
            if now - began > limit:
                raise TimeoutError(f"{out.name} has made {rows_in(out)} steps in {limit:g} s; its log says why")
            if first is None and rows_in(out):
                first, due = now, now + every
            if every and due is not None and now > due:
                part = PARTS[turn % len(PARTS)]
                if machines.kill(part):
                    killed.append((round(now - began, 1), part))
                    print(f"{now - began:7.1f} s: killed {part.strip()} at step {rows_in(out)}", flush=True)
                    turn, due = turn + 1, due + every
            time.sleep(0.2)
    finally:
        if running.poll() is None:
            running.kill()
    last = time.monotonic()
    assert first is not None, (out.parent / f"{out.name}.log").read_text()[-4000:]
    return {"status": running.returncode, "seconds": last - began, "learning_seconds": last - first, "killed": killed}


def left_with(out: Path, seconds: float, *, machines: Machines | None = None) -> list[str]:
    """What a run has left, in words, after so much patience."""
    deadline = time.monotonic() + seconds
    kinds = () if machines is None else ("ray::EpisodeWorker", "ray::TrainerRank", "ray::Engine", "ray::Controller")
    while True:
        found = [f"process {pid} {name[:80]}" for pid, name in titles() if str(out) in name]
        found += [f"process {pid} {kind}" for kind in kinds for pid in (machines.processes(kind) if machines else ())]
        found += [f"folder {path}" for path in out.rglob(".partial-*")]
        if (out / "engines" / "weights").exists():
            found.append("folder of weights")
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(1.0)


def compared(calm: Path, wild: Path) -> dict[str, Any]:
    """The numbers of steps, and how far their losses are apart."""
    names = ("step", *LEARNED)
    ours, expected = ([[row[name] for name in names] for row in metrics(out, "rl")] for out in (wild, calm))
    pairs = zip(ours, expected, strict=False)
    return {
        "steps": [len(expected), len(ours)],
        "largest_difference": max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two deaths")
    parser.add_argument("--limit", type=float, default=3600.0, help="most seconds of one run")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    token = f"VERIGYM_CHAOS={os.getpid()}-{time.time_ns()}"
    os.environ.update([token.split("=")])
    with tempfile.TemporaryDirectory(prefix="verigym-chaos-") as folder:
        root = Path(folder)
        (root / "recipe.toml").write_text(recipe_text(args.steps))
        machines = Machines()
        try:
            load = [os.getloadavg()[0]]
            calm = run(machines, root / "recipe.toml", root / "calm", 0.0, args.limit)
            load.append(os.getloadavg()[0])
            wild = run(machines, root / "recipe.toml", root / "wild", args.every, args.limit)
            load.append(os.getloadavg()[0])
            left = left_with(root / "wild", 90.0, machines=machines)
        finally:
            machines.close()
            for name in ("calm", "wild"):
                log = root / f"{name}.log"
                if log.exists():
                    args.out.with_suffix(f".{name}.log").write_bytes(log.read_bytes())
        deadline = time.monotonic() + 30
        while (processes := set(with_variable(token)) - {os.getpid()}) and time.monotonic() < deadline:
            time.sleep(1.0)
        found = compared(root / "calm", root / "wild")
        left += [f"process {pid}" for pid in processes]
    found |= {"calm": calm, "wild": wild, "load": load, "left": left}
    found["throughput"] = calm["learning_seconds"] / wild["learning_seconds"]
    args.out.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
