"""Reinforcement while it goes on: a table of the families that changes on a terminal, a line a step elsewhere."""

import re
import time
from collections import deque
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from .progress import Progress, curve

KEY = re.compile(r"(rollout/reward|rollout/passed|eval/passed)_(.+)/(?:mean|rate)")
STEPS_TIMED = 5


class Curves:
    """What ``Progress`` shows of a stage of reinforcement, step after step; a context manager."""

    def __init__(self, progress: Progress, num_steps: int, before: Iterable[Mapping[str, Any]] = ()) -> None:
        """
        Args:
            num_steps: of the whole stage.
            before: metrics of an earlier sitting's steps.
        """
        self._progress, self._num_steps = progress, num_steps
        self._values: dict[str, list[float]] = {}
        self._passed: dict[str, float] = {}
        self._evaluated: dict[str, tuple[float, int]] = {}
        self._seconds: deque[float] = deque(maxlen=STEPS_TIMED)
        self._step, self._newest = 0, dict[str, Any]()
        self._since = time.monotonic()
        for metrics in before:
            self._take(int(metrics.get("step", 0)), metrics)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.end_shown()

    def add(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Show the step's figures too. A family of which none of its episodes was graded has no new point."""
        now = time.monotonic()
        self._seconds.append(now - self._since)
        self._since = now
        self._take(step, metrics)
        self._progress.show(self.table, self.line())

    def line(self) -> str:
        """The newest figures, for a log."""
        rewards = ", ".join(f"{name} {values[-1]:.2f}" for name, values in self._values.items())
        known = [f"pass@1 of step {step}: {name} {rate:.2f}" for name, (rate, step) in self._evaluated.items()]
        step = f"reward, step {self._step} of {self._num_steps}: {rewards}"
        return "; ".join([step, *known, *self._speed(), *self._pace()])

    def table(self, width: int, height: int) -> RenderableType:
        """The families, as many as ``height`` lines hold, and who waits, in ``width`` columns."""
        shown = Table(box=None, padding=(0, 1), expand=False)
        shown.add_column("family", overflow="ellipsis", no_wrap=True, max_width=max(8, width // 4))
        shown.add_column("reward", no_wrap=True)
        for name in ("now", "passed", "pass@1"):
            shown.add_column(name, justify="right", no_wrap=True)
        names = list(self._values)
        kept = names if len(names) + 3 <= height else names[: max(1, height - 4)]
        room = max(4, width - width // 4 - 38)
        for name in kept:
            values, evaluated = self._values[name], self._evaluated.get(name)
            shown.add_row(
                name,
                curve(values, self._progress.levels, room),
                f"{values[-1]:.2f}",
                _percent(self._passed.get(name)),
                "" if evaluated is None else f"{_percent(evaluated[0])} ({evaluated[1]})",
            )
        lines: list[RenderableType] = [shown]
        if len(kept) < len(names):
            lines.append(Text(f" and {len(names) - len(kept)} more families", style="dim"))
        told = ([f"step {self._step} of {self._num_steps}", *self._pace()], self._speed())
        return Group(*lines, *(Text(" " + "; ".join(parts), no_wrap=True) for parts in told))

    def _speed(self) -> list[str]:
        newest, told = self._newest, []
        speeds = [
            f"{value:,.0f} {doing}"
            for key, doing in (("rollout", "sampled"), ("trainer", "trained"))
            if (value := newest.get(f"{key}/tokens_per_second/mean")) is not None
        ]
        if speeds:
            told.append(f"tokens/s: {', '.join(speeds)}")
        seconds = self._seconds[-1] if self._seconds else 0.0
        waits = [
            f"{who} {min(1.0, value / seconds):.0%}"
            for key, who in (("rollout", "sampler"), ("trainer", "trainer"))
            if seconds > 0 and (value := newest.get(f"{key}/seconds/idle")) is not None
        ]
        if waits:
            told.append(f"waiting: {', '.join(waits)}")
        return told

    def _pace(self) -> list[str]:
        told = []
        failed, ended = (int(self._newest.get(f"rollout/{name}/count", 0)) for name in ("failures", "episodes"))
        if failed:
            told.append(f"{failed} of {failed + ended} episodes had no reward, lost to failures")
        if self._newest.get("trainer/updates/count") == 0 and (ended or not failed):
            told.append("no update: each group's rewards were the same")
        if self._seconds and self._step < self._num_steps:
            told.append(f"{_clock(median(self._seconds) * (self._num_steps - self._step))} left")
        return told

    def _take(self, step: int, metrics: Mapping[str, Any]) -> None:
        self._step, self._newest = step, dict(metrics)
        for key, value in metrics.items():
            found = KEY.fullmatch(key)
            if found is None or value is None:
                continue
            if found[1] == "rollout/reward":
                self._values.setdefault(found[2], []).append(value)
            elif found[1] == "rollout/passed":
                self._passed[found[2]] = value
            else:
                self._evaluated[found[2]] = (value, step)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min" if minutes > 4 else f"{minutes}:{rest:02d}"
