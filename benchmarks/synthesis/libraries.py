"""How long libraries take to give tasks, and whether these hold.

    python -P benchmarks/synthesis/libraries.py [--limit 3] [--suite-budget 2] [--out FILE.json] NAME==VERSION ...

Each library begins with nothing cached: its sdist is fetched, its requirements are resolved and installed, its tests
run. A task that is written has been graded: gold 1, empty 0. Seconds are of the wall, and of the processor (of this
process and of those that it waited for: a sandbox counts when it closes), at the end and where each stage begins; the
load of the machine stands beside them. A statement has an input where it shows the code of a test with a literal in
it, or says values by "with".
"""

import argparse
import ast
import asyncio
import json
import os
import platform
import re
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("libraries", nargs="+", metavar="NAME==VERSION")
    parser.add_argument("--limit", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--suite-budget", type=float, default=2.0)
    parser.add_argument("--stage-timeout", type=float, default=120.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    report: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "python": platform.python_version(),
        "libraries": {},
    }
    for spec in args.libraries:
        # A process for each: environments are remembered in a process, and a folder's end with their library.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found = pool.submit(library, spec, args.limit, args.workers, args.suite_budget, args.stage_timeout).result()
        report["libraries"][spec] = found
        print(spec, json.dumps(found), flush=True)
        if args.out is not None:
            args.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def library(spec: str, limit: int, workers: int, suite_s: float, stage_s: float) -> dict[str, Any]:
    from verigym.envs.sandbox.choose import make_backend
    from verigym.envs.synthesis.make import synthesize_tree
    from verigym.envs.synthesis.sources import open_source
    from verigym.errors import VerigymError

    stages: dict[str, list[float]] = {}
    began, used, load = time.monotonic(), processor_s(), os.getloadavg()[0]

    def tell(what: str, done: int, total: int) -> None:
        at = [round(time.monotonic() - began, 1), round(processor_s() - used, 1)]
        stages.setdefault(re.sub(r"\d+", "N", what.partition(":")[0]), at)

    rows, problem = [], ""
    with tempfile.TemporaryDirectory(prefix="verigym-synthesis-") as folder:
        os.environ["VERIGYM_CACHE"] = folder
        try:
            source = open_source(spec, Path(folder), tell=tell)
            making = synthesize_tree(
                source,
                out=Path(folder) / "tasks.jsonl",
                limit=limit,
                seed=0,
                backend=make_backend("local"),
                workers=workers,
                progress=tell,
                suite_s=suite_s,
                stage_s=stage_s,
            )
            rows = asyncio.run(making)
        except VerigymError as error:
            problem = str(error)
    return {
        "tasks": len(rows),
        "with_input": sum(has_input(row["problem_statement"]) for row in rows),
        "wall_s": round(time.monotonic() - began, 1),
        "processor_s": round(processor_s() - used, 1),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        "begun_at_s": stages,
        "share": rows[0].get("test_share") if rows else None,
        "problem": problem,
        "statements": [row["problem_statement"] for row in rows],
    }


def has_input(statement: str) -> bool:
    """Whether a statement shows a value that the package was given."""
    for code in re.findall(r"```python\n(.*?)\n```", statement, re.DOTALL):
        try:
            nodes = list(ast.walk(ast.parse(code)))
        except SyntaxError:
            continue
        if "\nwith `" in statement or any(isinstance(node, ast.Constant | ast.List | ast.Dict) for node in nodes):
            return True
    return False


def processor_s() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


if __name__ == "__main__":
    sys.exit(main())
