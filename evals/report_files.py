"""The report of a run as files: report.json for programs, report.md and plots for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..envs.runs.files import write_json, write_text, write_with
from .passes import told_passes
from .report import told_comparison
from .worth_told import worth_rows

_MOST_BARS = 40


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write report.json, report.md and, where there is something to draw, passes.png and breakdown.png."""
    write_json(folder / "report.json", report)
    write_text(folder / "report.md", markdown(report))
    passes = {int(key[5:]): value for key, value in report.items() if key.startswith("pass@") and value is not None}
    if len(passes) > 1:
        _draw_passes(folder / "passes.png", passes)
    if report["breakdown"]:
        _draw_breakdown(folder / "breakdown.png", report["breakdown"])


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    source = report.get("policy") or report.get("predictions")
    lines = [f"# {report['suite']}, {source}", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {_told(value)} |" for key, value in report.items() if key.startswith("pass@")]
    if report["interval"] is not None:
        lines.append(f"| 95 % interval of pass@1 | {report['interval'][0]:.3f} to {report['interval'][1]:.3f} |")
    lines.append(f"| tasks graded | {report['n']} of {report['num_tasks']} |")
    for key in ("num_predictions", "num_ungradable", "num_infrastructure_failures", "num_tokens", "seconds"):
        lines.append(f"| {key.removeprefix('num_').replace('_', ' ')} | {_told(report[key])} |")
    lines += ["", "| ending | samples |", "|---|---|"]
    lines += [f"| {ending} | {count} |" for ending, count in report["endings"].items()]
    for label, values in report["breakdown"].items():
        lines += ["", f"| {label} | pass@1 | tasks |", "|---|---|---|"]
        lines += [f"| {value} | {_told(of['pass@1'])} | {of['n']} |" for value, of in values.items()]
    if "worth" in report:
        lines += ["", "| what it is worth | pass@1 or rate, 95 % interval | tasks |", "|---|---|---|"]
        lines += [f"| {what} | {figure} | {tasks} |" for what, figure, tasks in worth_rows(report["worth"])]
    if report.get("passes", {}).get("resolved"):
        lines += ["", *told_passes(report["passes"]).replace("\n  ", "\n- ").replace("\n", "\n\n", 1).splitlines()]
    if "against" in report:
        lines += ["", told_comparison(report["against"])]
    return "\n".join(lines) + "\n"


def _told(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def _draw_passes(path: Path, passes: Mapping[int, float]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5))
    # Of fixed margins: to find them costs half as much as to draw.
    axes = figure.subplots(gridspec_kw={"left": 0.12, "right": 0.98, "bottom": 0.14, "top": 0.97})
    axes.plot(list(passes), list(passes.values()), marker="o")
    axes.set(xlabel="k", ylabel="pass@k", ylim=(0, 1), xscale="log", xticks=list(passes))
    axes.set_xticklabels([str(k) for k in passes])
    axes.minorticks_off()
    write_with(path, lambda partial: figure.savefig(partial, dpi=120))


def _draw_breakdown(path: Path, parts: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    from matplotlib.figure import Figure

    shown = {label: list(values.items())[:_MOST_BARS] for label, values in parts.items()}
    height = sum(0.25 * len(values) + 1 for values in shown.values())
    figure = Figure(figsize=(6, height), layout="constrained")
    rows = figure.subplots(len(shown), 1, squeeze=False, height_ratios=[len(values) + 2 for values in shown.values()])
    for axes, (label, values) in zip(rows[:, 0], shown.items()):
        graded = [(f"{value} ({of['n']})", of) for value, of in values if of["pass@1"] is not None]
        rates = [of["pass@1"] for _, of in graded]
        low = [max(0.0, of["pass@1"] - of["interval"][0]) for _, of in graded]
        high = [max(0.0, of["interval"][1] - of["pass@1"]) for _, of in graded]
        axes.barh([name for name, _ in graded], rates, xerr=[low, high], color="tab:blue", ecolor="black")
        axes.set(title=f"pass@1 by {label} (tasks), 95 % intervals", xlim=(0, 1))
        axes.invert_yaxis()
    write_with(path, lambda partial: figure.savefig(partial, dpi=120))
