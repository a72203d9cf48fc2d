"""Pass@1 over steps and wall clock of runs of reinforcement learning, side by side.

    verigym train recipes/quickstart.toml --out runs/start --set rl=false
    verigym train recipes/quickstart.toml --out runs/grpo --set sft=false --set control=false \\
        --set model.checkpoint=runs/start/sft/checkpoint --set rl.evaluation.every=4
    python benchmarks/trainer/curves.py runs/grpo runs/ppo runs/ahead

Every run must have had ``rl.evaluation``, on the same tasks. Wall clock is the run's less its evaluations. A run that
samples ahead goes on sampling, as far ahead as its lag allows, while it is evaluated.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from verigym.trainer.loops.metrics import read_metrics


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of `verigym train`")
    parser.add_argument("--out", type=Path, help="where to write the rows as JSON")
    args = parser.parse_args()
    rows = [row for run in args.runs for row in rows_of(run)]
    if not rows:
        print("no run here has an evaluation during training; set rl.evaluation.every", file=sys.stderr)
        return 1
    families = sorted({name for row in rows for name in row["families"]})
    print(f"| run | step | minutes | pass@1 | {' | '.join(families)} | reward of the step |")
    print("|" + "---|" * (5 + len(families)))
    for row in rows:
        parts = " | ".join(f"{row['families'][name]:.2f}" for name in families)
        reward = "" if row["reward"] is None else f"{row['reward']:.2f}"
        print(f"| {row['run']} | {row['step']} | {row['minutes']:.1f} | {row['pass@1']:.3f} | {parts} | {reward} |")
    if args.out is not None:
        args.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


def rows_of(run: Path) -> list[dict[str, Any]]:
    """A row for each evaluation of a run: "run", "step", "minutes", "pass@1", "families", "reward"."""
    metrics = read_metrics(run / "rl" / "metrics.jsonl")
    rows, evaluating = [], 0.0
    for found in read_metrics(run / "rl" / "evaluations.jsonl"):
        done = [row for row in metrics if row["step"] <= found["step"]]
        # The clock of the metrics runs through earlier evaluations; the one that follows this step comes after its row.
        seconds = done[-1]["seconds"] - evaluating if done else 0.0
        reward = done[-1].get("rollout/reward/mean") if done else None
        rows.append({"run": run.name, "minutes": seconds / 60, "reward": reward, **found})
        evaluating += found["seconds"]
    return rows


if __name__ == "__main__":
    sys.exit(main())
