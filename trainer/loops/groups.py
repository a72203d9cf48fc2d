"""A group of episodes that has ended and waits for its update, and how it is saved."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...agent.trajectory import Trajectory
from ...envs.task import Task
from ..sampling.rollouts import Rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group of episodes that has ended.

    Attributes:
        number: in the run, in the order of their starts.
        task: theirs.
        rollouts: the episodes.
        version: of the oldest weights that sampled a token; None where none was sampled.
    """

    number: int
    task: Task
    rollouts: Rollouts
    version: int | None = field(init=False)

    def __post_init__(self) -> None:
        # Once: it is asked for at every change, of every group that waits.
        object.__setattr__(self, "version", _oldest(self.rollouts.trajectories))

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` makes it of again, with its episodes."""
        return {
            "number": self.number,
            "task": [self.task.family, self.task.id],
            # As text: of a million tokens it is one object, which is copied and written in no time.
            "trajectories": ["".join(one.json_pieces()) for one in self.rollouts.trajectories],
            "late": self.rollouts.num_late,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any], find: Callable[[str, str], Task]) -> "Group":
        """
        Args:
            find: the task of a family's name and its own.
        """
        rows = (json.loads(one) if isinstance(one, str) else one for one in row["trajectories"])  # 0.1 has no text
        trajectories = tuple(map(Trajectory.from_json, rows))
        return cls(
            number=int(row["number"]),
            task=find(*row["task"]),
            rollouts=Rollouts(trajectories=trajectories, num_late=int(row["late"])),
        )


def _oldest(trajectories: Iterable[Trajectory]) -> int | None:
    columns = (np.asarray(segment.policy_version) for one in trajectories for segment in one.segments)
    sampled = (column[column >= 0] for column in columns)
    return min((int(column.min()) for column in sampled if len(column)), default=None)
