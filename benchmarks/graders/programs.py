"""Programs a second, ours with the sandbox on, against LiveCodeBench's own checker without one.

    python -P benchmarks/graders/programs.py --data PROBLEMS.jsonl --predictions PROGRAMS.jsonl --peer LIVECODEBENCH

PROBLEMS and PROGRAMS are what ``verigym grade livecodebench`` takes. LIVECODEBENCH is a checkout of LiveCodeBench's
repository; its checker runs with its own defaults, as many processes as we have workers, the same tests. The two take
turns, ``--repeats`` times each, so that both meet the same machine; wall clock is
reported, the median and all runs. Where programs run into the time limit both wait for it, so ``--label true`` leaves
those that are wrong out.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PEER = """
import json, sys, io, os
sys.path.insert(0, sys.argv[1])
jobs = json.load(open(sys.argv[2]))
out = sys.stdout
sys.stdout = io.StringIO()
from lcb_runner.evaluation.compute_code_generation_metrics import evaluate_generations
if __name__ == "__main__":
    results, _ = evaluate_generations([{"input_output": job["input_output"]} for job in jobs],
                                      [[job["program"]] for job in jobs], num_process_evaluate=int(sys.argv[3]))
    verdicts = [all(one is True or one == 1 for one in results[at][0]) for at in range(len(jobs))]
    out.write(json.dumps(verdicts))
"""


def main() -> int:
    args = _arguments()
    from verigym.envs.datasets.livecodebench import decode_cases

    problems = {row["question_id"]: row for row in map(json.loads, args.data.open())}
    rows = [row for row in map(json.loads, args.predictions.open()) if args.label is None or row["label"] is args.label]
    rows = rows[: args.limit]
    jobs = []
    for row in rows:
        problem = problems[str(row["task_id"])]
        cases = decode_cases(problem["public_test_cases"]) + decode_cases(problem["private_test_cases"])
        checked = {
            "inputs": [case["input"] for case in cases],
            "outputs": [case["output"] for case in cases],
            "fn_name": json.loads(problem["metadata"]).get("func_name"),
        }
        jobs.append({"program": row["prediction"], "input_output": json.dumps(checked)})
    runs: dict[str, list[dict[str, Any]]] = {"verigym": [], "livecodebench": []}
    for _ in range(args.repeats):
        runs["verigym"].append(_measured(lambda: _ours(rows, problems, args.workers)))
        if args.peer is not None:
            runs["livecodebench"].append(_measured(lambda: _peer(args.peer, jobs, args.workers, args.scratch)))
    report = _report(args, rows, jobs, runs)
    print(json.dumps(report, indent=2))
    if args.out is not None:
        args.out.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--predictions", type=Path, required=True)
    parser.add_argument("--peer", type=Path, help="a checkout of LiveCodeBench's repository")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--label", type=lambda word: {"true": True, "false": False}[word], default=None)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp"))
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def _measured(run: Callable[[], list[bool]]) -> dict[str, Any]:
    began = time.perf_counter()
    verdicts = run()
    return {"seconds": time.perf_counter() - began, "verdicts": verdicts}


def _ours(rows: list[dict[str, Any]], problems: dict[str, Any], workers: int) -> list[bool]:
    from verigym.envs.datasets.files import SourceRow
    from verigym.evals.grade import grade
    from verigym.evals.predictions import Job
    from verigym.evals.suites.registry import suite_named
    from verigym.evals.suites.spec import GradeOptions, LoadOptions, Prediction

    suite = suite_named("livecodebench")
    sources = [SourceRow(where=name, value=row) for name, row in problems.items()]
    tasks = {task.id: task for task in suite.tasks_of(sources, LoadOptions())}
    jobs = []
    for index, row in enumerate(rows):
        name = str(row["task_id"])
        prediction = Prediction(where="", task_id=name, given_id=name, text=row["prediction"])
        jobs.append(Job(task=tasks[name], prediction=prediction, index=index))
    assert suite.make_grader is not None
    grader = suite.make_grader(GradeOptions(sandbox="local", workers=workers))
    return [verdict.passed is True for verdict in asyncio.run(grade(jobs, grader, workers=workers))]


def _peer(checkout: Path, jobs: list[dict[str, Any]], workers: int, scratch: Path) -> list[bool]:
    given = scratch / f"livecodebench-jobs-{os.getpid()}.json"
    given.write_text(json.dumps(jobs))
    try:
        argv = [sys.executable, "-c", PEER, str(checkout), str(given), str(workers)]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    finally:
        given.unlink()
    return json.loads(done.stdout)


def _report(args: argparse.Namespace, rows: list, jobs: list, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    for name, taken in runs.items():
        if taken:
            seconds = [one["seconds"] for one in taken]
            summary[name] = {
                "programs_per_second": len(rows) / statistics.median(seconds),
                "seconds": seconds,
                "passed": [sum(one["verdicts"]) for one in taken],
            }
    if runs["livecodebench"]:
        ours, theirs = runs["verigym"][0]["verdicts"], runs["livecodebench"][0]["verdicts"]
        summary["same_verdicts"] = sum(map(bool.__eq__, ours, theirs))
        summary["times_faster"] = (
            summary["verigym"]["programs_per_second"] / summary["livecodebench"]["programs_per_second"]
        )
    return {
        "num_programs": len(rows),
        "num_tests": sum(len(json.loads(job["input_output"])["inputs"]) for job in jobs),
        "workers": args.workers,
        "machine": {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()},
        "python": platform.python_version(),
        "load": os.getloadavg(),
        **summary,
    }


if __name__ == "__main__":
    sys.exit(main())
