"""The reward of each family over the steps of reinforcement, shown while they go on."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

from .progress import Progress

KEY = re.compile(r"rollout/reward_(.+)/mean")


class Curves:
    """What ``Progress.curves`` draws, step after step; a context manager."""

    def __init__(self, progress: Progress, num_steps: int, before: Sequence[Mapping[str, Any]] = ()) -> None:
        """
        Args:
            num_steps: of the whole stage.
            before: metrics of an earlier sitting's steps.
        """
        self._progress, self._num_steps = progress, num_steps
        self._values: dict[str, list[float]] = {}
        for metrics in before:
            self._take(metrics)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.end_curves()

    def add(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Show the step's rewards too. A family of which none of its episodes was graded has no new point."""
        self._take(metrics)
        self._progress.curves(f"reward, step {step} of {self._num_steps}", self._values)

    def _take(self, metrics: Mapping[str, Any]) -> None:
        for key, value in metrics.items():
            found = KEY.fullmatch(key)
            if found is not None and value is not None:
                self._values.setdefault(found[1], []).append(value)
