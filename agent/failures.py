"""Bugs of environments over a whole run: each is shown once, all are counted, and too many end the run."""

import logging
import traceback
from collections import Counter, deque

from ..envs.task import Task
from ..errors import EnvironmentBug
from .trajectory import Trajectory

logger = logging.getLogger(__name__)

WINDOW = 100
"""Last episodes that the share of failures is taken of."""
MIN_EPISODES = 20
"""Episodes that the share is taken of, where fewer have ended: some at the start end nothing."""


class Failures:
    """What environments' own code did wrong in the episodes of a run.

    Attributes:
        by_hook: hook -> times it failed, in attempts that were tried again too.
    """

    def __init__(self, max_share: float | None = None) -> None:
        """
        Args:
            max_share: of episodes that a bug left without a reward, after all their attempts; beyond it ``ended``
                raises. None: any.
        """
        self.by_hook: Counter[str] = Counter()
        self._max_share = max_share
        self._last: deque[Trajectory] = deque(maxlen=WINDOW)
        self._shown: set[tuple[str, str, str]] = set()

    def met(self, bug: EnvironmentBug) -> None:
        """Count a bug, and show it with its traceback where it is the first of its kind."""
        self.by_hook[bug.hook] += 1
        kind = (bug.environment, bug.hook, _place_of(bug))
        if kind in self._shown:
            logger.debug("%s", bug)
            return
        self._shown.add(kind)
        logger.error("%s (shown once; further ones are counted)", bug, exc_info=bug.__cause__ or bug)

    def ended(self, trajectory: Trajectory) -> None:
        """An episode is over, after its last attempt.

        Raises:
            EnvironmentBug: more than ``max_share`` of the last episodes met one.
        """
        self._last.append(trajectory)
        found = [one for one in self._last if one.failed_in]
        if self._max_share is None or len(found) <= self._max_share * max(MIN_EPISODES, len(self._last)):
            return
        hooks = ", ".join(f"{hook} {count}" for hook, count in Counter(one.failed_in for one in found).most_common())
        raise EnvironmentBug(
            f"{len(found)} of the last {len(self._last)} episodes were lost to bugs of their environment, by hook: "
            f"{hooks}; max_failures allows a share of {self._max_share:g}. The last one: {found[-1].detail}. Mend the "
            "environment, or raise max_failures",
            hook=found[-1].failed_in,
        )


def lost_to(bug: EnvironmentBug, task: Task, group_id: str = "") -> Trajectory:
    """The episode that a bug kept from beginning: it has no reward."""
    return Trajectory(
        task_id=task.id,
        family=task.family,
        group_id=group_id or task.id,
        ending="environment_failure",
        detail=str(bug),
        failed_in=bug.hook,
    )


def _place_of(bug: EnvironmentBug) -> str:
    """The kind of the error and the line that raised it: the same bug in another task is no other bug."""
    if bug.__cause__ is None:
        return ""
    frames = traceback.extract_tb(bug.__cause__.__traceback__)
    return f"{type(bug.__cause__).__name__} {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
