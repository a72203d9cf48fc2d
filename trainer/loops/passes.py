"""Passes looked at, step by step: which share has something that a person should see, and whether that share rises."""

import logging
from collections import deque
from math import sqrt

from ..sampling.rollouts import Rollouts

logger = logging.getLogger(__name__)

BEGINNING, WINDOW = 30, 30
"""Passes of the run's beginning that later ones are held against, and how many later ones at a time."""
RISE, SIGMAS = 0.1, 3.0
"""The share has risen where it is so much higher, and so many standard errors."""


class PassWatch:
    """Keeps the share of flagged passes (``agent.passes``) in sight. A resumed run takes a new beginning."""

    def __init__(self) -> None:
        self._beginning: list[bool] = []
        self._later: deque[bool] = deque(maxlen=WINDOW)
        self._rang = False

    def metrics(self, rollouts: Rollouts) -> dict[str, float]:
        """Of a step: "rollout/passes_flagged/rate" and "rollout/passes_flagged/alarm" (1 while the share has risen);
        none where no pass was looked at. The log is told once a rise."""
        flags = [bool(one.evidence["flags"]) for one in rollouts.trajectories if one.passed and "flags" in one.evidence]
        if not flags:
            return {}
        for flag in flags:
            if len(self._beginning) < BEGINNING:
                self._beginning.append(flag)
            else:
                self._later.append(flag)
        risen = self._has_risen()
        if risen and not self._rang:
            logger.warning(
                "%d of the last %d passes have something to look at, %d of the first %d had: the policy may be finding "
                "answers instead of making them; read the flags of episodes in rl/episodes",
                sum(self._later),
                len(self._later),
                sum(self._beginning),
                len(self._beginning),
            )
        self._rang = risen
        return {"rollout/passes_flagged/rate": sum(flags) / len(flags), "rollout/passes_flagged/alarm": float(risen)}

    def _has_risen(self) -> bool:
        if len(self._later) < WINDOW:
            return False
        first, last = (sum(some) / len(some) for some in (self._beginning, self._later))
        pooled = (sum(self._beginning) + sum(self._later)) / (BEGINNING + WINDOW)
        error = sqrt(pooled * (1 - pooled) * (1 / BEGINNING + 1 / WINDOW))
        return last - first >= max(RISE, SIGMAS * error) and last > first
