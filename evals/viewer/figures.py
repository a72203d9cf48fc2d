"""Figures of runs: the metrics of training in columns, summaries of evaluations, and two evaluations task by task."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ..metrics import breakdown, family_summary, paired_difference, task_pass_rates
from ..verdict import Verdict
from .flags import passes_of, worth_shown
from .runs import SAMPLED, FoundRun, about, evaluations_in, find_runs, read_json, stages_of
from .tail import Rows

SPARK_POINTS = 60
MOST_FLIPPED = 500


class Metrics:
    """The metrics of runs, read as far as they have grown."""

    def __init__(self) -> None:
        self._files: dict[Path, Rows] = {}

    def rows(self, path: Path) -> Rows:
        """The rows of one file, brought up to date."""
        rows = self._files.setdefault(path, Rows(path))
        rows.read()
        return rows

    def columns(self, run: FoundRun, stage: str) -> dict[str, Any]:
        """ "columns": name -> a value for each row of a stage, None where it has none; "generation" changes where rows
        that were there have gone. Evaluations during training are in "watched"."""
        if "/" in stage or stage.startswith("."):
            raise ConfigError(f"there is no stage {stage!r}")
        rows = self.rows(run.path / stage / "metrics.jsonl")
        names = dict.fromkeys(name for row in rows.rows for name in row)
        columns = {name: [row.get(name) for row in rows.rows] for name in names}
        columns["tokens"] = _running_sum(columns.get("trainer/tokens/count", []), len(rows.rows))
        watched = self.rows(run.path / stage / "evaluations.jsonl").rows
        return {"stage": stage, "columns": columns, "generation": rows.generation, "watched": watched}

    def version(self, run: FoundRun) -> int:
        """Another one whenever a stage has other rows."""
        read = [self.rows(run.path / stage / "metrics.jsonl") for stage in stages_of(run)]
        return sum(rows.generation * 1_000_000 + len(rows.rows) for rows in read)

    def headline(self, run: FoundRun, stages: Sequence[str]) -> dict[str, Any]:
        """What the list of runs shows of a training: its last step, and a line of rewards."""
        stage = next((name for name in ("rl", "distill") if name in stages), stages[-1] if stages else "")
        if not stage:
            return {}
        rows = self.rows(run.path / stage / "metrics.jsonl").rows
        if not rows:
            return {}
        name = "rollout/reward/mean" if stage in SAMPLED else "trainer/loss/mean"
        values = [row[name] for row in rows if row.get(name) is not None]
        stride = max(1, -(-len(values) // SPARK_POINTS))
        spark = [_mean(values[start : start + stride]) for start in range(0, len(values), stride)]
        last, recent = rows[-1], rows[-10:]
        rates = [row["rollout/tokens_per_second/mean"] for row in recent if row.get("rollout/tokens_per_second/mean")]
        return {
            "stage": stage,
            "step": last.get("step"),
            "seconds": last.get("seconds"),
            "figure": {
                "name": "reward" if stage in SAMPLED else "loss",
                "value": _mean(values[-5:]) if values else None,
            },
            "passed": last.get("rollout/passed/rate"),
            "tokens_per_second": _mean(rates) if rates else None,
            "spark": spark,
        }


def _running_sum(values: Sequence[float | None], count: int) -> list[float]:
    total, sums = 0.0, []
    for value in [*values, *([None] * (count - len(values)))]:
        total += value or 0.0
        sums.append(total)
    return sums


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class Verdicts:
    """The verdicts of evaluations, read as far as they have grown; a sample that was taken again counts once."""

    def __init__(self) -> None:
        self._files: dict[Path, Rows] = {}
        self._made: dict[Path, tuple[tuple[int, int], list[Verdict]]] = {}

    def of(self, run: FoundRun) -> list[Verdict]:
        path = run.path / "verdicts.jsonl"
        rows = self._files.setdefault(path, Rows(path))
        found = rows.read()
        state = rows.generation, len(found)
        if self._made.get(path, (None,))[0] != state:
            verdicts: dict[tuple[str, int], Verdict] = {}
            for row in found:
                try:
                    verdict = Verdict.from_json(row)
                except TypeError:
                    continue
                verdicts[verdict.key] = verdict
            self._made[path] = state, list(verdicts.values())
        return self._made[path][1]

    def summary(self, run: FoundRun) -> dict[str, Any]:
        """What an evaluation came to so far."""
        verdicts = self.of(run)
        settings = read_json(run.path / "settings.json") or {}
        families = sorted({verdict.family for verdict in verdicts})
        return {
            "id": run.id,
            "name": run.name,
            "settings": settings,
            "summary": family_summary(verdicts),
            "families": {name: family_summary([v for v in verdicts if v.family == name]) for name in families},
            "breakdown": breakdown(verdicts),
            "progress": read_json(run.path / "progress.json"),
            "worth": worth_shown(read_json(run.path / "report.json")),
            "passes": passes_of(run.path),
        }

    def headline(self, run: FoundRun) -> dict[str, Any]:
        """What the list of runs shows of an evaluation."""
        verdicts = self.of(run)
        rates = list(task_pass_rates(verdicts).values())
        value = _mean(rates) if rates else None
        return {"episodes": len(verdicts), "figure": {"name": "pass@1", "value": value}, "passed": value, "spark": []}

    def compare(self, first: FoundRun, second: FoundRun) -> dict[str, Any]:
        """Second against first: McNemar, and the tasks that differ."""
        before, after = self.of(first), self.of(second)
        rates = task_pass_rates(before), task_pass_rates(after)
        shared = [task for task in rates[0] if task in rates[1]]
        if not shared:
            return {"shared": 0, "difference": None, "flipped": []}
        flipped = [
            {"task": task, "before": rates[0][task], "after": rates[1][task]}
            for task in sorted(shared, key=lambda task: (rates[0][task] - rates[1][task], task))
            if rates[0][task] != rates[1][task]
        ]
        return {
            "shared": len(shared),
            "difference": asdict(paired_difference(before, after)),
            "flipped": flipped[:MOST_FLIPPED],
            "more": max(0, len(flipped) - MOST_FLIPPED),
        }


def listed(folders: Sequence[Path], metrics: Metrics, verdicts: Verdicts) -> list[dict[str, Any]]:
    """The runs of the folders, each with its state and main figures."""
    rows = []
    for run in find_runs(folders):
        row = about(run)
        if run.kind == "training":
            row |= metrics.headline(run, row["stages"])
        elif run.path.is_dir():
            row |= verdicts.headline(run)
        rows.append(row)
    return rows


def overview(run: FoundRun, verdicts: Verdicts) -> dict[str, Any]:
    """What is known of a run beside its metrics and episodes: recipe or settings, report, what its stages left."""
    found: dict[str, Any] = {
        "config": (read_json(run.path / "recipe.json") or read_json(run.path / "settings.json"))
        if run.path.is_dir()
        else None,
        "report": read_json(run.path / "report.json") if run.path.is_dir() else None,
        "progress": read_json(run.path / "progress.json") if run.path.is_dir() else None,
        "evaluations": [],
    }
    if run.kind == "training":
        found["evaluations"] = [
            {"id": one.id, "name": one.name, **_short(verdicts.of(one))} for one in evaluations_in(run)
        ]
    return found


def _short(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    rates = list(task_pass_rates(verdicts).values())
    return {"n": len(rates), "pass@1": _mean(rates) if rates else None, "samples": len(verdicts)}


def differences(values: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """The settings in which recipes differ: [{"key": "rl.train.group_size", "values": {RUN: value}}]."""
    flat = {name: dict(_flat(recipe or {})) for name, recipe in values.items()}
    keys = dict.fromkeys(key for one in flat.values() for key in one)
    return [
        {"key": key, "values": {name: one.get(key) for name, one in flat.items()}}
        for key in keys
        if len({repr(one.get(key)) for one in flat.values()}) > 1
    ]


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        items = [(str(name), one) for name, one in value.items()]
    elif isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        items = [
            (str(one.get("name", place)) if isinstance(one, Mapping) else str(place), one)
            for place, one in enumerate(value)
        ]
    else:
        return [(prefix, value)]
    return [pair for name, one in items for pair in _flat(one, f"{prefix}.{name}" if prefix else name)]
