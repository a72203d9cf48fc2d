"""What a run tells at its end: the table of its report, and what can be done next."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ...agent.harness.open import OWN
from ..recipe.recipe import Recipe

STAGE_TITLES = {
    "start": "start",
    "midtrain": "mid-trained",
    "sft": "supervised",
    "distill": "distilled",
    "rl": "after RL",
    "best": "best of RL",
    "control": "control",
    "trivial": "trivial",
    "gold": "gold",
    "empty": "empty",
}


def report_table(recipe: Recipe, names: Sequence[str], report: Mapping[str, Any]) -> Table:
    """pass@1 of each family after each stage.

    Args:
        names: of the families, in order.
        report: as ``report.json`` has it.
    Returns:
        families as rows and stages as columns, or the other way where that is fewer columns: 80 of them are all that
        many terminals have.
    """
    stages = [stage for stage in STAGE_TITLES if stage in report["mean"]]
    last = "rl" if "rl" in report["mean"] or "distill" not in report["mean"] else "distill"
    heads = ["n", *(_title(stage, report) for stage in stages), "gain of RL" if last == "rl" else "gain"]
    rows = {name: _row(name, stages, last, report) for name in names}
    means = report["mean"]
    gain = "" if last not in means or "sft" not in means else f"{100 * (means[last] - means['sft']):+.1f}"
    rows["mean"] = ["", *(_percent(means[stage]) for stage in stages), gain]
    title = f"{recipe.name}: pass@1 on held-out tasks, sampled (greedy), 95 % interval below"
    if len(rows) < len(heads):
        table = Table(title=title)
        table.add_column("", overflow="fold")
        for name in rows:
            table.add_column(name, justify="right", overflow="fold")
        for head, *cells in zip(heads, *rows.values(), strict=True):
            table.add_row(head, *cells, end_section=head in ("n", heads[-2]))
        return table
    table = Table(title=title, box=SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("family", overflow="fold")
    for head in heads:
        longest = max(map(len, head.split()))  # no head is broken within a word
        table.add_column(head, justify="right", overflow="fold", min_width=longest)
    for name, cells in rows.items():
        if name == "mean":
            table.add_section()
        table.add_row(name, *cells)
    return table


def _title(stage: str, report: Mapping[str, Any]) -> str:
    is_cut = stage != "control" and "cut" in report["stages"].get(stage, {})
    return STAGE_TITLES[stage] + (" (cut)" if is_cut else "")


def _row(name: str, stages: Sequence[str], last: str, report: Mapping[str, Any]) -> list[str]:
    found, pair = report["families"][name], report["paired"][name].get(f"{last}-sft")
    gain = ""
    if pair is not None:
        low, high = pair["interval"]
        gain = f"{100 * pair['mean']:+.1f}\n[{100 * low:+.1f}, {100 * high:+.1f}]"
    return [str(max(row["n"] for row in found.values())), *(_cell(found.get(stage)) for stage in stages), gain]


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    greedy = f" ({_percent(row['greedy'])})" if row.get("greedy") is not None else ""
    interval = row["interval"]
    below = f"\n[{100 * interval[0]:.0f},{100 * interval[1]:.0f}]" if interval else ""
    return f"{_percent(row['pass@1'])}{greedy}{below}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def closing(out: Path, recipe: Recipe, report: Mapping[str, Any], *, plotted: bool) -> str:
    """Lines below the table: what was cut short or did nothing, where things are, and a command to go on with."""
    stages = report["stages"]
    checkpoints = {stage: row["checkpoint"] for stage, row in stages.items()}
    last = next((checkpoints[stage] for stage in ("rl", "distill", "sft", "midtrain") if stage in checkpoints), None)
    cut = [
        f"cut: {STAGE_TITLES.get(stage, stage)} after {row['steps']} steps, for {row['cut']}"
        for stage, row in stages.items()
        if "cut" in row and stage != "control"  # which has reinforcement's time and no other end
    ]
    lines = [
        *cut,
        *_without_updates(stages.get("rl")),
        f"{report['seconds'] / 60:.1f} minutes; {report['num_infrastructure_failures']} infrastructure failures",
        f"{out / 'report.json'}: every figure, with intervals",
        f"{out / 'episodes.txt'}: full episodes",
    ]
    if plotted:
        lines.append(f"{out / 'curves.png'}: reward and pass@1 over the steps")
    lines += [f"{path}: checkpoint, loads in transformers too" for path in checkpoints.values()]
    if last:
        lines.append(f"next: {eval_command(out, recipe, last)}" if recipe.families else f"next: verigym serve {last}")
    return "\n".join(lines)


def _without_updates(stage: Mapping[str, Any] | None) -> list[str]:
    """A stage of reinforcement that learned nothing looks like one that has."""
    if stage is None or stage.get("updates") != 0:
        return []
    return [
        f"no update: in each of the {stage['steps']} steps of reinforcement the samples of a task had one and the same "
        "reward, which teaches nothing; these are the weights from before. Longer imitation, easier tasks or more "
        "samples of each (rl.train.group_size) give rewards that differ"
    ]


def eval_command(out: Path, recipe: Recipe, checkpoint: str) -> str:
    """The command that measures a checkpoint again on the first family's held-out tasks, in that family's own
    environment, whichever it is; other families likewise."""
    family = recipe.families[0]
    data = out / "tasks" / f"{family.name}.held_out.jsonl"
    words = ["verigym", "eval", family.env, "--data", str(data), "--policy", f"engine:{checkpoint}"]
    words += ["--max-turns", str(family.turns), "--max-tokens", str(family.turn_tokens)]
    if recipe.sandbox != "auto":
        words += ["--sandbox", recipe.sandbox]
    if family.agent.name != OWN:
        words += ["--agent", family.agent.name]
    return shlex.join(words)
