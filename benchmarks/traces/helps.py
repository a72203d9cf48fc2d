"""Does it help to learn from traces first? A recipe's families with and without, for the same compute.

    python -P benchmarks/traces/helps.py --out DIR [--recipe recipes/smoke.toml] [--seeds 0 1 2] [--updates 200]

Every arm has the recipe's families and one more, "returns": say what a call returns, as CruxEval asks. Every arm makes
``--updates`` updates of as many tokens more than the recipe says: "imitation" makes them on demonstrations, "traces" on
traces, before imitation. What ``--rl`` sets applies to the arms "imitation, rl" and "traces, rl", which begin with what
these two have learned, and have another setting of reinforcement learning. A run that is there already is not made
again. The folder gets ``report.json`` and ``report.md``: pass@1 on held-out tasks after imitation and after
reinforcement learning, of all seeds together with Wilson intervals, and of each.
"""

import argparse
import json
import os
import platform
import shutil
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STAGES = ("sft", "rl")
RETURNS: dict[str, Any] = {
    "name": "returns",
    "env": "verigym/Trace-v0",
    "tasks": "small-traces",
    "num_train": 200,
    "num_held_out": 60,
    "turns": 1,
    "turn_tokens": 32,
    "num_demonstrations": 200,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/smoke.toml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--programs", type=int, default=2000, help="whose traces are learned")
    parser.add_argument("--rl", nargs="*", default=[], metavar="KEY=VALUE", help="of rl.train, for two more arms")
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch (as many as there are cores)")
    parser.add_argument("--arms", nargs="+", help="some of the arms (all)")
    args = parser.parse_args()
    rows: dict[str, dict[int, Any]] = {}
    for seed in args.seeds:
        for arm in args.arms or arms_of(args.rl):
            rows.setdefault(arm, {})[seed] = run(arm, seed, args)
    machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    report = {"recipe": str(args.recipe), "updates": args.updates, "machine": machine, "arms": summed(rows)}
    (args.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    (args.out / "report.md").write_text(table_of(report["arms"]))
    print(table_of(report["arms"]))
    return 0


def arms_of(rl: Sequence[str]) -> list[str]:
    return ["imitation", "traces", *(["imitation, rl", "traces, rl"] if rl else [])]


def run(arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The report of one run, with its wall clock and processor seconds."""
    from verigym.trainer.recipe.recipe import Recipe
    from verigym.trainer.run.train import train

    out = args.out / f"{arm.replace(', ', '-')}-{seed}"
    kept = out / "measured.json"
    if not kept.exists():
        began, clock = time.process_time(), time.monotonic()
        recipe = Recipe.model_validate(values_of(arm, seed, args))
        before = args.out / f"{arm.removesuffix(', rl')}-{seed}"
        if arm.endswith(", rl") and before.exists() and not out.exists():
            shutil.copytree(before, out, ignore=lambda folder, names: {"rl", "measured.json"} & set(names))
            (out / "recipe.json").write_text(recipe.model_dump_json())
        if train(recipe, out, resume=(out / "recipe.json").exists()):
            sys.exit(130)
        seconds = {"processor": time.process_time() - began, "wall": time.monotonic() - clock}
        kept.write_text(json.dumps({**json.loads((out / "report.json").read_text()), "seconds": seconds}))
    return json.loads(kept.read_text())


def values_of(arm: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The recipe of one run, before it is read."""
    values = tomllib.loads(args.recipe.read_text(encoding="utf-8"))
    values |= {"seed": seed, "control": False, "threads": args.threads}
    values["families"] = [*values["families"], RETURNS]
    values["model"] = {
        **values["model"],
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 32,
    }
    values["rl"]["train"]["num_tasks"] = max(len(values["families"]), values["rl"]["train"]["num_tasks"])
    values["rl"].pop("max_seconds", None)  # the clock would end some arms earlier
    sft = values["sft"]
    sft["train"]["patience"] = 0  # and so would a plateau
    tokens = {name: sft["train"][name] for name in ("batch_tokens", "microbatch_tokens")}
    if arm.startswith("traces"):
        values["midtrain"] = {
            "sources": [{"name": "traces", "traces": "small-programs", "num": args.programs}],
            "train": {"max_steps": args.updates, "patience": 0, "context_weight": 0.0, **tokens},
            "optim": {"lr": 6e-3, "matrices": "muon", "muon_lr": 2e-3, "warmup_steps": 20},
        }
    else:
        sft["train"]["max_steps"] += args.updates
        if "total_steps" in sft.get("optim", {}):
            sft["optim"]["total_steps"] += args.updates  # else all of them would be made at the lowest rate
    if arm.endswith(", rl"):
        for setting in args.rl:
            key, _, value = setting.partition("=")
            node = values["rl"]["train"]
            *parents, last = key.split(".")
            for name in parents:
                node = node.setdefault(name, {})
            node[last] = tomllib.loads(f"value = {value}")["value"]
    return values


def summed(rows: Mapping[str, Mapping[int, Any]]) -> dict[str, Any]:
    """Arm -> family -> stage: pass@1 over all seeds with its interval, and each seed's."""
    from verigym.evals.metrics import wilson_interval

    found: dict[str, Any] = {}
    for arm, reports in rows.items():
        families: dict[str, Any] = {}
        for family in next(iter(reports.values()))["families"]:
            for stage in STAGES:
                cells = {seed: report["families"][family][stage] for seed, report in reports.items()}
                num = sum(cell["n"] for cell in cells.values())
                passed = sum(cell["pass@1"] * cell["n"] for cell in cells.values())
                families.setdefault(family, {})[stage] = {
                    "pass@1": passed / num,
                    "interval": wilson_interval(passed, num),
                    "n": num,
                    "seeds": {seed: cell["pass@1"] for seed, cell in cells.items()},
                }
        seconds = {seed: report["seconds"] for seed, report in reports.items()}
        found[arm] = {"families": families, "seconds": seconds}
    return found


def table_of(arms: Mapping[str, Any]) -> str:
    """A table in Markdown, shares in %."""
    families = list(next(iter(arms.values()))["families"])
    lines = [f"| arm | stage | {' | '.join(families)} |", f"|---|---|{'---|' * len(families)}"]
    for arm, row in arms.items():
        for stage in STAGES:
            cells = [row["families"][family][stage] for family in families]
            told = [
                f"{100 * cell['pass@1']:.0f} [{100 * cell['interval'][0]:.0f}, {100 * cell['interval'][1]:.0f}] ("
                + ", ".join(f"{100 * one:.0f}" for one in cell["seeds"].values())
                + ")"
                for cell in cells
            ]
            lines.append(f"| {arm} | {stage} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
