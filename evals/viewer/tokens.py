"""The tokens of one episode with what is known of each, and the tree that its segments are."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...agent.segments import Segment
from ...agent.trajectory import Trajectory
from .runs import FoundRun

MOST_TOKENS = 20_000
"""Most tokens of one segment that are sent; of a longer one the last, where the outcome is."""
NUMBERS = ("logprobs", "trainer_logprobs", "entropy", "advantage", "ratio", "clipped", "correction")
_DIGITS = 5


def tokens_of(run: FoundRun, row: Mapping[str, Any], line: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The segments of an episode, columns by name; [] where its tokens were not kept.

    Args:
        row: of the index.
        line: the row of a file of trajectories, whose segments are in it; None: of a training run.
    """
    if line is not None:
        segments = [_of_trajectory(segment) for segment in _segments(line)]
    else:
        segments = [_of_part(found) for found in _kept(run.path / row["stage"] / "tokens", row["step"], row["sample"])]
    parents = tree([segment["token_ids"] for segment in segments])
    for segment, (parent, shared) in zip(segments, parents, strict=True):
        segment |= {"parent": parent, "shared": shared, "length": len(segment["token_ids"]), "first": 0}
        _cut(segment)
    return segments


def _segments(line: Mapping[str, Any]) -> Sequence[Segment]:
    known = {name: value for name, value in line.items() if name in ("task_id", "family", "ending", "segments", "tree")}
    return Trajectory.from_json(known).segments


def tree(segments: Sequence[Sequence[int]]) -> list[tuple[int | None, int]]:
    """Of each segment the earlier one that it shares the longest beginning with, and how many tokens that has; (None,
    0) where it shares none."""
    found: list[tuple[int | None, int]] = []
    for number, mine in enumerate(segments):
        best: tuple[int | None, int] = (None, 0)
        for other in range(number):
            shared = _shared(mine, segments[other])
            if shared > best[1]:
                best = (other, shared)
        found.append(best)
    return found


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    count = 0
    for mine, theirs in zip(one, other):
        if mine != theirs:
            break
        count += 1
    return count


def _kept(folder: Path, step: int, episode: int) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("*.parquet")):
        first, _, last = path.stem.partition("-")
        if not (first.isdigit() and last.isdigit() and int(first) <= step <= int(last)):
            continue
        try:
            rows = pq.read_table(path, filters=[("step", "=", step), ("episode", "=", episode)]).to_pylist()
        except (OSError, ValueError):  # gone, or cut by a resume, at this moment
            continue
        if rows:
            return sorted(rows, key=lambda row: row["segment"])
    return []


def _of_part(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "token_ids": row["token_ids"],
        "text": row["text"],
        "roles": row["roles"],
        "loss_mask": [int(value) for value in row["loss_mask"]],
        "policy_version": row["policy_version"],
        **{name: [_number(value) for value in row[name]] for name in NUMBERS if name in row},
    }


def _of_trajectory(segment: Segment) -> dict[str, Any]:
    return {
        "token_ids": list(segment.token_ids),
        "text": [],
        "roles": list(segment.roles),
        "loss_mask": [int(value) for value in segment.loss_mask],
        "policy_version": list(segment.policy_version),
        "logprobs": [_number(value) for value in segment.logprobs],
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, _DIGITS)


def _cut(segment: dict[str, Any]) -> None:
    left_out = segment["length"] - MOST_TOKENS
    if left_out > 0:
        for name, column in segment.items():
            if isinstance(column, list) and column:
                segment[name] = column[left_out:]
        segment["first"] = left_out
