"""The report of an evaluation: report.json for programs, a table for people."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..envs.datasets.files import read_rows
from ..errors import ConfigError
from .metrics import breakdown, family_summary, paired_difference
from .verdict import Verdict

if TYPE_CHECKING:
    from rich.table import Table


def build_report(
    suite: str,
    source: str,
    verdicts: Sequence[Verdict],
    *,
    seconds: float,
    settings: Mapping[str, Any] | None = None,
    kind: Literal["policy", "predictions"] = "policy",
) -> dict[str, Any]:
    """What report.json holds.

    Args:
        suite, source: as asked for.
        verdicts: of the whole run.
        seconds: wall clock of this invocation; a resumed one did not take the recorded samples again.
        settings: of the run, copied.
        kind: what ``source`` names.
    Returns:
        "suite", "policy" (or "predictions"), the keys of ``family_summary``, "families" (family -> summary),
        "breakdown" (see there), "seconds", "settings".
    """
    families = sorted({verdict.family for verdict in verdicts})
    return {
        "suite": suite,
        kind: source,
        **family_summary(verdicts),
        "families": {family: family_summary([v for v in verdicts if v.family == family]) for family in families},
        "breakdown": breakdown(verdicts),
        "seconds": round(seconds, 3),
        "settings": dict(settings or {}),
    }


def report_table(report: Mapping[str, Any]) -> "Table":
    """The report as a rich table: a column a family, and one for all where there are several."""
    from rich.table import Table

    columns = dict(report["families"])
    if len(columns) > 1:
        columns["all"] = report
    source = f"policy {report['policy']}" if "policy" in report else Path(report["predictions"]).name
    title = f"{report['suite']}, {source}, {report['seconds']:.0f} s"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in columns:
        table.add_column(name or "-", justify="right")
    for label, told in (_MEASURES | _OF_EPISODES if report["mean_turns"] else _MEASURES).items():
        table.add_row(label, *(told(column) for column in columns.values()))
    for key in sorted({key for column in columns.values() for key in _higher(column)}, key=lambda key: int(key[5:])):
        table.add_row(key, *(_number(column.get(key)) for column in columns.values()))
    for ending in report["endings"]:
        table.add_row(f"ended: {ending}", *(str(column["endings"].get(ending, 0)) for column in columns.values()))
    return table


def compare_with(verdicts: Sequence[Verdict], folder: Path) -> dict[str, Any]:
    """This run against the one recorded in a folder, task by task: the fields of ``PairedDifference``.

    Raises:
        TaskError: the folder holds no verdicts. ConfigError: it holds none of the same tasks.
    """
    before = [Verdict.from_json(row.value) for row in read_rows(folder / "verdicts.jsonl")]
    try:
        return {"run": str(folder), **asdict(paired_difference(before, verdicts))}
    except ValueError as error:
        raise ConfigError(f"--against {folder}: {error}") from None


def told_comparison(against: Mapping[str, Any]) -> str:
    """A comparison in one line."""
    return (
        f"against {against['run']}: {against['mean']:+.3f} ({against['low']:+.3f} to {against['high']:+.3f}), "
        f"{against['num_better']} tasks better, {against['num_worse']} worse of {against['num_tasks']}, "
        f"McNemar p = {against['p_value']:.3g}"
    )


def told_failures(verdicts: Sequence[Verdict]) -> str:
    """What the infrastructure failed, in one line; "" where it failed nothing."""
    failed = [verdict for verdict in verdicts if verdict.is_infrastructure_failure]
    if not failed:
        return ""
    counts = ", ".join(f"{count} {ending}" for ending, count in Counter(one.ending for one in failed).most_common())
    return (
        f"the infrastructure failed {len(failed)} of {len(verdicts)} samples ({counts}), which count in no figure; the "
        f"first: {failed[0].detail}. With --out the same command tries them again"
    )


def _higher(summary: Mapping[str, Any]) -> list[str]:
    return [key for key in summary if key.startswith("pass@") and key != "pass@1"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(summary: Mapping[str, Any]) -> str:
    return "-" if summary["interval"] is None else f"{summary['interval'][0]:.3f} to {summary['interval'][1]:.3f}"


_MEASURES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "pass@1": lambda summary: _number(summary["pass@1"]),
    "95 % interval": _interval,
    "tasks graded": lambda summary: f"{summary['n']} of {summary['num_tasks']}",
    "samples": lambda summary: str(summary["num_predictions"]),
    "infrastructure failures": lambda summary: str(summary["num_infrastructure_failures"]),
    "ungradable": lambda summary: str(summary["num_ungradable"]),
    "not trusted": lambda summary: str(summary["num_untrusted"]),
}
_OF_EPISODES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "format errors, of turns": lambda summary: f"{summary['format_error_rate']:.1%}",
    "turns, mean": lambda summary: f"{summary['mean_turns']:.1f}",
    "tokens sampled": lambda summary: f"{summary['num_tokens']:,}" if summary["num_tokens"] else "-",
    "seconds an episode, mean": lambda summary: f"{summary['mean_seconds']:.1f}",
}
