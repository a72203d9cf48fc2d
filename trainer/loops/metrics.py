"""Metrics of a run: one JSON line a step, and, where asked for, an experiment tracker through accelerate."""

import json
import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ...agent.trajectory import TRUNCATED
from ...envs.runs.files import bytes_written_whole
from ...errors import ConfigError
from ..objective.advantages import GroupAdvantages
from ..sampling.rollouts import Rollouts
from .trackers import Tracker
from .trackers import open_tracker as open_tracker

logger = logging.getLogger(__name__)


class MetricsWriter:
    """Appends to a JSON Lines file: "step", "seconds" since the run began, and keys "room/quantity/stat".

    A number that is not finite is written as null. Opening an existing file goes on with it: lines of steps above
    ``resume_step`` are dropped, because they will be made again, and "seconds" goes on from the last one kept. A
    tracker, which forgets nothing, is told of a step that is made again only the first time.
    """

    def __init__(self, path: str | Path, *, resume_step: int = 0, tracker: Tracker | None = None) -> None:
        self._path, self._tracker = Path(path), tracker
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._told, seconds = self._go_on(resume_step)
        self._started = time.monotonic() - seconds
        self._file = self._path.open("a", encoding="utf-8")

    def _go_on(self, resume_step: int) -> tuple[int, float]:
        """Drop what will be made again: (the last step that is known, the seconds of the last one kept)."""
        told, seconds, num_bytes = 0, 0.0, 0
        for line, row in _lines(self._path):
            told = max(told, row["step"])
            if row["step"] <= resume_step:
                seconds, num_bytes = float(row.get("seconds", 0.0)), num_bytes + len(line)
        if self._path.exists() and num_bytes != self._path.stat().st_size:
            with bytes_written_whole(self._path) as out:
                out.writelines(line for line, row in _lines(self._path) if row["step"] <= resume_step)
        return told, seconds

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line, on disk when this returns."""
        row: dict[str, Any] = {"step": step, "seconds": round(time.monotonic() - self._started, 3)}
        row |= {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._tracker is not None and step > self._told:
            self._tracker.log(dict(metrics), step=step)

    def close(self) -> None:
        self._file.close()
        if self._tracker is not None:
            self._tracker.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a metrics file, [] where there is none. A last line that a crash cut off is left out."""
    return list(metric_rows(path))


def metric_rows(path: str | Path) -> Iterator[dict[str, Any]]:
    """``read_metrics``, one row after another."""
    return (row for _, row in _lines(Path(path)))


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """(line with its end, row), one after another."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                if not isinstance(row["step"], int):
                    raise TypeError(row["step"])
            except (ValueError, RecursionError, KeyError, TypeError):
                if file.read(1):
                    raise ConfigError(
                        f"{path}, line {number}: no row of metrics; delete the line or the file"
                    ) from None
                logger.warning("%s: the last line was cut off and is left out", path)
                return
            yield line if line.endswith(b"\n") else line + b"\n", row


def rollout_metrics(rollouts: Rollouts) -> dict[str, float]:
    """Rewards and lengths of episodes, all together and by family, and each family's parts of the reward; failures are
    counted apart, and in no mean."""
    graded = [one for one in rollouts.trajectories if one.reward is not None and not one.speaker]
    metrics = {
        "rollout/episodes/count": float(len(graded)),
        "rollout/failures/count": float(rollouts.num_failed),
        "rollout/retries/count": float(rollouts.num_retries),
        "rollout/cut_at_deadline/count": float(rollouts.num_cut),
        "rollout/late_groups/count": float(rollouts.num_late),
        **{f"rollout/bugs_{hook.replace(' ', '_')}/count": float(count) for hook, count in rollouts.bugs.items()},
    }
    if not graded:
        return metrics
    families = sorted({trajectory.family for trajectory in graded})
    parts = [("", graded), *((f"_{name}", [one for one in graded if one.family == name]) for name in families)]
    for suffix, members in parts:
        metrics[f"rollout/reward{suffix}/mean"] = _mean([one.reward or 0.0 for one in members])
        metrics[f"rollout/passed{suffix}/rate"] = _mean([float(bool(one.passed)) for one in members])
    for family, members in parts[1:]:
        for name in sorted({name for one in members for name in one.breakdown}):
            values = [one.breakdown[name] for one in members if name in one.breakdown]
            metrics[f"rollout/part{family}.{name}/mean"] = _mean(values)
    for name in sorted({f"{one.family}_{one.speaker}" for one in rollouts.trajectories if one.speaker}):
        beside = [one for one in rollouts.trajectories if f"{one.family}_{one.speaker}" == name]
        metrics[f"rollout/reward_{name}/mean"] = _mean([one.reward for one in beside if one.reward is not None])
    num_turns = sum(one.num_turns for one in graded)
    return {
        **metrics,
        "rollout/turns/mean": num_turns / len(graded),
        "rollout/sampled_tokens/mean": _mean([float(one.num_sampled) for one in graded]),
        "rollout/truncated/rate": _mean([float(one.ending in TRUNCATED) for one in graded]),
        "rollout/format_errors/rate": sum(one.num_format_errors for one in graded) / max(1, num_turns),
    }


def sampled_tokens(row: Mapping[str, float | None]) -> float:
    """Of all graded episodes of a step, by ``rollout_metrics``."""
    return (row.get("rollout/sampled_tokens/mean") or 0.0) * (row.get("rollout/episodes/count") or 0.0)


def group_metrics(groups: GroupAdvantages) -> dict[str, float]:
    """How many groups had something to teach."""
    return {
        "trainer/groups/count": float(groups.num_groups),
        "trainer/groups_uniform/count": float(groups.num_uniform),
        "trainer/groups_lone/count": float(groups.num_lone),
        "trainer/advantage_abs/mean": _mean([abs(value) for value in groups.values if value is not None]),
    }


def policy_metrics(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the updates of a step; the mismatch, and the share of its tokens that importance weights of the
    sampler's draws leave (Kish), are those of the first, before the weights have moved."""
    if not updates:
        return {}
    names = (
        *("loss", "approx_kl", "clipfrac", "ratio", "sampler_divergence", "entropy", "kl", "correction"),
        *("value_loss", "critic_grad_norm"),
    )
    names = (*names, "echo_loss", "divergence", "teacher_kl", "teacher_gain", "teacher_gain_over_student")
    known = [name for name in names if name in updates[0]]
    first = updates[0]
    return {
        **{f"trainer/{name}/mean": _mean([update[name] for update in updates]) for name in known},
        "trainer/mismatch_kl/mean": first["approx_kl"],
        "trainer/mismatch/max": first["logprob_gap/max"],
        "trainer/sampler_effective_sample_size/share": first["sampler_weight"] ** 2 / first["sampler_weight_squared"],
    }


def update_metrics(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Gradient norms, rate and token counts of the updates of a step (TrainStep's results)."""
    metrics = {"trainer/updates/count": float(len(updates))}
    if updates:
        metrics |= {
            "trainer/grad_norm/mean": _mean([update["grad_norm"] for update in updates]),
            "trainer/lr/last": updates[-1]["lr"],
            "trainer/updates_skipped/count": sum(update["skipped"] for update in updates),
            "trainer/tokens/count": sum(update["tokens"] for update in updates),
            "trainer/trained_tokens/count": sum(update["trained_tokens"] for update in updates),
        }
    return metrics


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
