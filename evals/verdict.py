"""A verdict: what one sample of one task came to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..agent.trajectory import INFRASTRUCTURE, Trajectory
from ..envs.task import Task
from ..rewards.score import NOT_TRUSTED

LABELS = ("repo", "difficulty", "level", "subject", "platform", "mode", "operator")
"""Keys of a task's metadata that reports break down by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One row of verdicts.jsonl.

    Attributes:
        task_id, family: of the task.
        index: which of the task's samples, from 0.
        passed: the benchmark's verdict; None where there is none (the infrastructure failed, or it cannot be graded).
        score: in [0, 1]; None as above.
        breakdown: its named parts; none where it has none.
        ending: a trajectory's, or "ungradable".
        detail: one line on what decided.
        failed_in: of an environment_failure, the hook that failed.
        num_turns, num_format_errors: of the episode.
        num_tokens: sampled tokens; None for policies of text only.
        seconds: wall clock of the episode; of a prediction that was there already, of its grading.
        labels: of the task, what reports break down by.
        given_id: the id as a file of predictions writes it, where that is not ``task_id``; the row repeats it.
    """

    task_id: str
    index: int
    passed: bool | None
    score: float | None
    ending: str
    detail: str = ""
    failed_in: str = ""
    family: str = ""
    num_turns: int = 0
    num_format_errors: int = 0
    num_tokens: int | None = None
    seconds: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    breakdown: Mapping[str, float] = field(default_factory=dict)
    given_id: str | int | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.task_id, self.index

    @property
    def is_infrastructure_failure(self) -> bool:
        return self.ending in INFRASTRUCTURE

    @property
    def is_untrusted(self) -> bool:
        """Whether all tests of a patch passed while some that decide have no twin, whatever that was worth."""
        return self.detail.startswith(NOT_TRUSTED)

    def to_json(self) -> dict[str, Any]:
        row = asdict(self)
        given_id = row.pop("given_id")
        if given_id not in (None, self.task_id):
            # The row is found by the id it was asked with; ours stands beside it.
            row |= {"task_id": given_id, "task": self.task_id}
        return row

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Verdict":
        """Inverse of ``to_json``; unknown keys are ignored."""
        known = {key: row[key] for key in cls.__dataclass_fields__ if key in row}
        if "task" in row:
            known |= {"task_id": row["task"], "given_id": row["task_id"]}
        return cls(**known)

    @classmethod
    def of(cls, trajectory: Trajectory, index: int, labels: Mapping[str, str] | None = None) -> "Verdict":
        """The verdict of an episode."""
        return cls(
            task_id=trajectory.task_id,
            index=index,
            passed=trajectory.passed,
            score=trajectory.reward,
            breakdown=dict(trajectory.breakdown),
            ending=trajectory.ending,
            detail=trajectory.detail,
            failed_in=trajectory.failed_in,
            family=trajectory.family,
            num_turns=trajectory.num_turns,
            num_format_errors=trajectory.num_format_errors,
            num_tokens=trajectory.num_sampled if trajectory.segments else None,
            seconds=round(trajectory.timings.get("total", 0.0), 3),
            labels=dict(labels or {}),
        )


def labels_of(task: Task) -> dict[str, str]:
    """What reports break a task's verdict down by."""
    return {key: str(task.metadata[key]) for key in LABELS if task.metadata.get(key) not in (None, "")}
