"""What ``strengthen`` is worth: how many wrong solutions that weak tests accept its tests refuse, and whether they
refuse right ones of kinds that had no say.

    python -P benchmarks/audit/stronger.py ROWS [--planted weak] [--only NAME ...] [--show]

Seconds are the processor's, of the runs of tests. ``--show`` prints the wrong solutions that are left.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from verigym.envs.audit.bench import open_bench
from verigym.envs.audit.further_tests.strengthen import neutral_variants, strengthen
from verigym.envs.audit.solutions.variants import diff_of
from verigym.envs.datasets.swe import SWERow, row_of, task_of
from verigym.envs.sandbox.choose import make_backend
from verigym.envs.sandbox.types import SandboxBackend
from verigym.errors import SandboxError, TaskError

HELD_OUT = ("extracted", "inlined", "moved", "result named")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--planted", default="weak", help="rows whose planted fault begins so")
    parser.add_argument("--only", nargs="*", default=[""], help="rows whose ids begin so")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--sandbox", default="local")
    args = parser.parse_args()
    backend, total = make_backend(args.sandbox), Counter[str]()
    for line in args.rows.read_text().splitlines():
        raw = json.loads(line)
        if raw["planted"].startswith(args.planted) and raw["instance_id"].startswith(tuple(args.only)):
            began = time.monotonic()
            try:
                found = asyncio.run(measured(backend, raw, args.rows.parent, show=args.show))
            except (TaskError, SandboxError) as error:
                print(raw["instance_id"], "not measured:", str(error)[:120], flush=True)
                continue
            print(raw["instance_id"], *(f"{name} {value:.0f}" for name, value in found.items()), end=" ")
            print(f"wall {time.monotonic() - began:.0f}", flush=True)
            total += Counter(found)
    print(f"{total['seconds']:.0f} s; refused now {total['killed']} of {total['accepted']} wrong solutions;", end=" ")
    print(f"of held-out kinds {total['refused']} of {total['right']} right ones ({', '.join(HELD_OUT)})")
    return 0


async def measured(backend: SandboxBackend, raw: dict[str, Any], folder: Path, *, show: bool) -> dict[str, float]:
    """Wrong solutions accepted before and refused now; right ones of kinds held out, and those refused now; seconds."""
    row = row_of(task_of(raw, folder=folder))
    stronger = await strengthen(backend, row, held_out=HELD_OUT)
    found: dict[str, float] = {"accepted": stronger.num_alive, "killed": stronger.num_killed, "right": 0, "refused": 0}
    found["seconds"] = stronger.spent_s
    if stronger.kept.files:
        async with open_bench(backend, row) as bench:
            for one in stronger.left if show else ():
                print(one.kind, one.what, diff_of(bench.gold, one.files), sep="\n", flush=True)
            right = [one for one in await neutral_variants(bench, row) if one.kind in HELD_OUT]
        second: SWERow = row_of(task_of(stronger.row(raw, row), folder=folder))
        async with open_bench(backend, second) as bench:
            outcomes = await bench.run([{}, *(one.files for one in right)])
        if not outcomes[0].resolved:
            raise TaskError(f"{row.instance_id}: the reference fails its own stronger tests")
        found |= {"right": len(right), "refused": sum(not one.resolved for one in outcomes[1:])}
    return found


if __name__ == "__main__":
    raise SystemExit(main())
