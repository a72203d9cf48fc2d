"""The report of a run: ``report.json``, a table, curves, and episodes to read."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...agent.transcript import format_episode
from ...envs.runs.files import write_json, write_text, write_with
from ...evals.metrics import paired_difference
from ..loops.metrics import read_metrics
from ..recipe.recipe import Recipe
from ..sampling.evaluation import Evaluation
from ..sampling.families import Family
from .told import closing, report_table
from .watching import evaluations_of

SMOOTHING = 5
PAIRS = (("distill", "sft"), ("rl", "distill"), ("rl", "sft"), ("rl", "control"), ("control", "sft"))
"""Stages that are compared task by task: (after, before)."""


def write_report(
    out: Path,
    *,
    recipe: Recipe,
    families: Sequence[Family],
    evaluations: Mapping[str, Mapping[str, Evaluation]],
    stages: Mapping[str, Mapping[str, Any]],
    left_out: Mapping[str, Mapping[str, int]],
    seconds: float,
    note: Callable[[Any], None],
) -> None:
    """Write the report into ``out`` and show its table.

    ``report.json``: "families" {NAME: {STAGE: {"pass@1", "interval", "greedy", "n", ...}}}, "mean" {STAGE: pass@1},
    "paired" {NAME: {"rl-sft", "rl-control" (``PAIRS``): {"mean", "interval", "n"}}}, "stages" {STAGE: {"seconds",
    "checkpoint", "steps", of "distill" and "rl" "updates", and "cut", why, where a limit of time ended it}},
    "left_out" {SOURCE: {REASON: items like what is held out}} (``held_out.jsonl`` names each),
    "evaluations" (those during RL, {"step", "pass@1", "families", ...} each, none without rl.evaluation),
    "num_infrastructure_failures", "seconds". Stage "best" is of the tasks that did not choose it; which step it is of
    stands in "stages", "rl", "best".
    """
    names = [family.config.name for family in families]
    summaries = {
        name: {stage: found[name].summary() for stage, found in evaluations.items() if name in found} for name in names
    }
    report = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "families": summaries,
        "mean": {
            stage: _mean([summaries[name][stage]["pass@1"] for name in names if stage in summaries[name]])
            for stage in evaluations
        },
        "paired": {name: _paired(name, evaluations) for name in names},
        "stages": dict(stages),
        "left_out": {source: dict(reasons) for source, reasons in left_out.items()},
        "evaluations": evaluations_of(out / "rl"),
        "num_infrastructure_failures": sum(
            row["num_infrastructure_failures"] for rows in summaries.values() for row in rows.values()
        ),
        "seconds": round(seconds, 1),
    }
    write_json(out / "report.json", report)
    plotted = _plot(out)
    _write_episodes(out, evaluations)
    note(report_table(recipe, names, report))
    note(closing(out, recipe, report, plotted=plotted))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _paired(name: str, evaluations: Mapping[str, Mapping[str, Evaluation]]) -> dict[str, dict[str, Any]]:
    """Differences of pass@1 on the same tasks, with their 95 % intervals."""
    rows: dict[str, dict[str, Any]] = {}
    for after, before in PAIRS:
        if after in evaluations and before in evaluations:
            found = paired_difference(evaluations[before][name].sampled, evaluations[after][name].sampled)
            rows[f"{after}-{before}"] = {"mean": found.mean, "interval": [found.low, found.high], "n": found.num_tasks}
    return rows


def _plot(out: Path) -> bool:
    """Reward and pass@1 over the steps of reinforcement learning, as a PNG. False where there are none."""
    rows = read_metrics(out / "rl" / "metrics.jsonl")
    if not rows:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4))
    # Of fixed margins: to find them costs half as much as to draw.
    margins = {"left": 0.045, "right": 0.99, "bottom": 0.13, "top": 0.92, "wspace": 0.04}
    axes = figure.subplots(1, 2, sharey=True, gridspec_kw=margins)
    for axis, quantity, stat, title in (
        (axes[0], "reward", "mean", "reward"),
        (axes[1], "passed", "rate", "pass@1 of the episodes"),
    ):
        # Keys are rollout/reward/mean for all episodes and rollout/reward_FAMILY/mean for those of a family.
        prefix, suffix = f"rollout/{quantity}", f"/{stat}"
        for key in sorted({key for row in rows for key in row if key.startswith(prefix) and key.endswith(suffix)}):
            points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            name = key.removeprefix(prefix).removesuffix(suffix).removeprefix("_")
            style = {"linewidth": 1.4} if name else {"color": "black", "linewidth": 2.2}
            steps, values = zip(*points, strict=True)
            axis.plot(steps, _smooth(values), label=name or "all", **style)
        axis.set(title=f"{title}, mean of {SMOOTHING} steps", xlabel="step", ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    watched = evaluations_of(out / "rl")
    if watched:
        steps, values = zip(*((row["step"], row["pass@1"]) for row in watched), strict=True)
        axes[1].plot(steps, values, "o--", color="black", label="held-out tasks")
        axes[1].legend()
    axes[0].legend()
    write_with(out / "curves.png", lambda partial: figure.savefig(partial, dpi=130))
    return True


def _smooth(values: Sequence[float]) -> list[float]:
    """Mean of each value and those before it, ``SMOOTHING`` in all."""
    windows = (values[max(0, end - SMOOTHING) : end] for end in range(1, len(values) + 1))
    return [sum(window) / len(window) for window in windows]


def _write_episodes(out: Path, evaluations: Mapping[str, Mapping[str, Evaluation]]) -> None:
    """One full episode of each family after the last trained stage, as text."""
    stage = next((stage for stage in ("rl", "distill", "sft", "midtrain", "start") if stage in evaluations), None)
    if stage is None:
        return
    episodes = [found.episode for found in evaluations[stage].values() if found.episode is not None]
    if episodes:
        write_text(out / "episodes.txt", "\n\n\n".join(map(format_episode, episodes)) + "\n")
