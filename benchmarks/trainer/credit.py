"""GRPO, teachers and self-teachers side by side: the quickstart, some seeds, equal numbers of sampled tokens.

    python -P benchmarks/trainer/credit.py --out runs/credit [--seeds 0 1 2] [--families code math] [--at-once 2]

Each seed has one supervised checkpoint, where all its runs begin, and its GRPO run says how many tokens the others may
sample. A run that is there already is not made again, and one that was cut off goes on. The folder gets
``report.json`` and ``report.md``: pass@1 on the held-out tasks of all seeds together, what a run gains over GRPO task
by task, both with 95 % intervals, and each seed's.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from verigym.envs.task import read_jsonl
from verigym.evals.metrics import family_summary, paired_difference
from verigym.evals.verdict import Verdict

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.toml"
SUPERVISED, REWARDED = "supervised", "GRPO"
REVERSE: dict[str, Any] = {
    "algorithm": "opd",
    "teacher": "reinforced",
    "divergence": {"kind": "reverse"},
    "num_tasks": 6,
    "group_size": 4,
}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of the table.

    Attributes:
        train: of ``rl.train``, over what the quickstart has.
        share: of the tokens that GRPO sampled.
        schedule: whether the rate falls as GRPO's does; else it stays.
        parts: what the teacher is shown of each family's episodes; "tests" of the repairs alone.
        long: whether the first seed alone is made.
    """

    train: Mapping[str, Any]
    share: float = 1.0
    schedule: bool = True
    parts: Sequence[str] = field(default=())
    long: bool = False


SIBLING, VERDICT = ("sibling",), ("verdict", "tests")
MIX: dict[str, Any] = {"algorithm": "sdpo", "teacher_weight": 0.5, "reward_weight": 0.5}
ARMS = {
    REWARDED: Arm(train={}),
    "opd, a fifth": Arm(train=REVERSE, share=0.185, schedule=False),
    "sdpo, verdict and tests": Arm(train={"algorithm": "sdpo"}, parts=VERDICT),
    "sdpo, sibling": Arm(train={"algorithm": "sdpo"}, parts=SIBLING),
    "mix": Arm(train=MIX, parts=SIBLING + VERDICT),
    "opd": Arm(train=REVERSE, schedule=False),
    "dppo": Arm(train={"algorithm": "dppo"}),
    "mix, four times": Arm(train=MIX, parts=SIBLING + VERDICT, share=4.0, long=True),
    "opd, four times": Arm(train=REVERSE, share=4.0, schedule=False, long=True),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--families", nargs="+", default=["swe", "code", "math"], help="of the quickstart")
    parser.add_argument("--steps", type=int, default=16, help="of GRPO, which say how many tokens all others sample")
    parser.add_argument("--at-once", type=int, default=2, help="runs, one thread of PyTorch each")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return run(args.one[0], int(args.one[1]), args)
    arms = [SUPERVISED, *(name for name in ARMS if name in {REWARDED, *args.arms})]
    begun: dict[tuple[str, int], Future[bool]] = {}
    with ThreadPoolExecutor(args.at_once) as pool:
        for arm in arms:
            for seed in seeds_of(arm, args.seeds):
                before = None if arm == SUPERVISED else begun[SUPERVISED if arm == REWARDED else REWARDED, seed]
                begun[arm, seed] = pool.submit(started, arm, seed, before)
    if not all(future.result() for future in begun.values()):
        return 1
    write_report(args, arms)
    return 0


def seeds_of(arm: str, seeds: Sequence[int]) -> Sequence[int]:
    return seeds[:1] if arm != SUPERVISED and ARMS[arm].long else seeds


def folder_of(out: Path, arm: str, seed: int) -> Path:
    return out / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"


def started(arm: str, seed: int, before: Future[bool] | None) -> bool:
    """Whether a run ended well, in a process of its own; what it says goes beside its folder.

    Args:
        before: what it begins from, which was begun earlier.
    """
    if before is not None and not before.result():
        return False
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    folder = folder_of(out, arm, seed)
    if (folder / "report.json").exists():
        return True
    out.mkdir(parents=True, exist_ok=True)
    print(f"{arm}, seed {seed}: begins", flush=True)
    with folder.with_suffix(".log").open("a") as log:
        command = [sys.executable, "-P", __file__, *sys.argv[1:], "--one", arm, str(seed)]
        status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    print(f"{arm}, seed {seed}: {'ended' if not status else f'failed, see {log.name}'}", flush=True)
    return status == 0


def run(arm: str, seed: int, args: argparse.Namespace) -> int:
    from verigym.trainer.recipe.recipe import Recipe
    from verigym.trainer.run.train import train

    out, start = folder_of(args.out, arm, seed), folder_of(args.out, SUPERVISED, seed)
    values = values_of(arm, seed, args)
    if arm != SUPERVISED and not out.exists():  # the same tasks, and what the supervised model is worth
        shutil.copytree(start / "tasks", out / "tasks")
        shutil.copytree(start / "evals" / "sft", out / "evals" / "start")
    return train(Recipe.model_validate(values), out, resume=(out / "recipe.json").exists())


def values_of(arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The recipe of one run, before it is read."""
    values = tomllib.loads(RECIPE.read_text(encoding="utf-8"))
    values.pop("quick")
    values |= {"seed": seed, "control": False, "estimate": False, "overlap": False, "threads": 1}
    values["eval"] = {"samples": 1, "greedy": False, "controls": []}
    values["families"] = [family for family in values["families"] if family["name"] in args.families]
    if arm == SUPERVISED:
        return values | {"rl": False}
    one = ARMS[arm]
    values["model"] = {"checkpoint": f"{folder_of(args.out, SUPERVISED, seed)}/sft/checkpoint", "max_context": 512}
    values["sft"] = False
    rl = values["rl"]
    rl["steps"], rl["train"] = args.steps, {**rl["train"], **one.train}
    rl["optim"]["total_steps"] = round(2 * args.steps * one.share)
    if arm != REWARDED:
        rewarded = folder_of(args.out, REWARDED, seed)
        sampled = json.loads((rewarded / "report.json").read_text())["stages"]["rl"]["sampled_tokens"]
        rl["max_sampled_tokens"] = round(one.share * sampled)
        rl["steps"] = 100 * args.steps  # the tokens end it
        if one.train["algorithm"] == "opd":
            values["teachers"] = {"reinforced": {"policy": f"engine:{rewarded}/rl/checkpoint"}}
    if not one.schedule:
        rl["optim"] = {"lr": rl["optim"]["lr"], "warmup_steps": rl["optim"]["warmup_steps"]}
    if one.parts:
        rl["train"]["hindsight"] = {"parts": [part for part in one.parts if part != "tests"], "max_tokens": 160}
        for family in values["families"]:
            if family["name"] == "swe":
                family["rl"] = {"hindsight": {"parts": list(one.parts), "max_tokens": 160}}
    return values


def verdicts_of(out: Path, arm: str, seed: int, family: str) -> list[Verdict]:
    """Of a run's last weights; tasks of different seeds have different ids."""
    stage = "sft" if arm == SUPERVISED else "rl"
    rows = read_jsonl(folder_of(out, arm, seed) / "evals" / stage / family / "sampled" / "verdicts.jsonl")
    return [replace(one, task_id=f"{seed}/{one.task_id}") for one in map(Verdict.from_json, rows)]


def write_report(args: argparse.Namespace, arms: Sequence[str]) -> None:
    rows = {arm: row_of(arm, args) for arm in arms}
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    report = {"machine": machine, "seeds": args.seeds, "families": args.families, "steps": args.steps, "arms": rows}
    (args.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (args.out / "report.md").write_text(table_of(rows, args.families))
    print(table_of(rows, args.families))


def row_of(arm: str, args: argparse.Namespace) -> dict[str, Any]:
    seeds = seeds_of(arm, args.seeds)
    reports = [json.loads((folder_of(args.out, arm, seed) / "report.json").read_text()) for seed in seeds]
    row: dict[str, Any] = {"seeds": list(seeds), "tokens": [], "cut": [], "gain": [], "families": {}}
    if arm != SUPERVISED:
        stages = [report["stages"]["rl"] for report in reports]
        row["tokens"] = [stage["sampled_tokens"] for stage in stages]
        row["cut"] = [stage.get("cut", "") for stage in stages]
        row["steps"] = [stage["steps"] for stage in stages]
        row["seconds"] = [stage["seconds"] for stage in stages]
        row["gain"] = [gain_of(folder_of(args.out, arm, seed)) for seed in seeds]
    for family in args.families:
        found = [verdicts_of(args.out, arm, seed, family) for seed in seeds]
        before = [one for seed in seeds for one in verdicts_of(args.out, REWARDED, seed, family)]
        after = [one for verdicts in found for one in verdicts]
        difference = paired_difference(before, after)
        row["families"][family] = {
            **{key: family_summary(after)[key] for key in ("pass@1", "interval", "n", "num_infrastructure_failures")},
            "each": [family_summary(verdicts)["pass@1"] for verdicts in found],
            "over_grpo": {"mean": difference.mean, "interval": [difference.low, difference.high]},
        }
    return row


def gain_of(folder: Path) -> list[float]:
    """What the teacher knew over the student, step by step."""
    key = "trainer/teacher_gain_over_student/mean"
    return [row[key] for row in read_jsonl(folder / "rl" / "metrics.jsonl") if row.get(key) is not None]


def table_of(rows: Mapping[str, Mapping[str, Any]], families: Sequence[str]) -> str:
    """A table in Markdown, in %: pass@1 [interval] (each seed), and what is gained over GRPO."""
    lines = [
        f"| run | sampled tokens, a seed | {' | '.join(families)} | over GRPO: {', '.join(families)} | ended early |",
        f"|---|---|{'---|' * len(families)}---|---|",
    ]
    for arm, row in rows.items():
        cells, gains = [], []
        for family in families:
            cell = row["families"][family]
            low, high = cell["interval"]
            each = ", ".join(f"{100 * one:.0f}" for one in cell["each"])
            cells.append(f"{100 * cell['pass@1']:.1f} [{100 * low:.0f}, {100 * high:.0f}] ({each})")
            low, high = cell["over_grpo"]["interval"]
            gains.append(f"{100 * cell['over_grpo']['mean']:+.0f} [{100 * low:+.0f}, {100 * high:+.0f}]")
        tokens = ", ".join(f"{count:,}" for count in row["tokens"])
        stopped = [
            f"{seed} at {step}"
            for seed, step, cut in zip(row["seeds"], row.get("steps", ()), row["cut"], strict=False)
            if "collapses" in cut
        ]
        told = "; ".join(gains) if arm != REWARDED else ""
        lines.append(f"| {arm} | {tokens} | {' | '.join(cells)} | {told} | {', '.join(stopped)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
