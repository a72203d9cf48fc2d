"""A group of episodes that has ended and waits for its update, and how it is saved."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

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
    """

    number: int
    task: Task
    rollouts: Rollouts

    @property
    def version(self) -> int | None:
        """Of the oldest weights that sampled a token; None where none was sampled."""
        return min(
            (
                version
                for one in self.rollouts.trajectories
                for s in one.segments
                for version in s.policy_version
                if version >= 0
            ),
            default=None,
        )

    def to_json(self) -> dict[str, Any]:
        """What ``from_json`` makes it of again, with its episodes."""
        return {
            "number": self.number,
            "task": [self.task.family, self.task.id],
            "trajectories": [one.to_json() for one in self.rollouts.trajectories],
            "late": self.rollouts.num_late,
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any], find: Callable[[str, str], Task]) -> "Group":
        """
        Args:
            find: the task of a family's name and its own.
        """
        trajectories = tuple(Trajectory.from_json(one) for one in row["trajectories"])
        return cls(
            number=int(row["number"]),
            task=find(*row["task"]),
            rollouts=Rollouts(trajectories=trajectories, num_late=int(row["late"])),
        )
