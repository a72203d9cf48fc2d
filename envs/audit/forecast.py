"""How long an audit takes, by the seconds of the rows' own suites: before it starts and while it runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean

from ..synthesis.steady import LONG_SUITE_S
from .manners import manners
from .measure import Effort

OPEN_S = 6.0
"""Seconds of a row that are not of its tests: its sandbox, patches, the search for leaks."""
SUITE_S = 0.8
"""Of a suite, where none was timed."""
HELD, FIRST, OTHERS = 3.0, 3, 14
"""A run that is held up counts as so many; runs that come before all manners, one of them traced; rewrites of the
reference."""
SHARE = 0.5
"""Of the suite that a mutant or a rewrite takes: it meets the tests of changed functions first and stops at the first
that fails. Of a long suite rewrites meet no others."""
NOTING = 6.0
"""Runs of the suite that copies of tests take."""
FEWEST_S = 0.05
"""Of what a row that took longer than was expected still needs: a part of that."""


def row_seconds(suite_s: float, effort: Effort) -> float:
    """Seconds of a row whose reference's tests take ``suite_s``, the row's own limit not passed."""
    found = manners(datetime(2026, 7, 1), suite_s=suite_s).values()
    reruns = sum(HELD if one.held_up else 1.0 for one in found)
    others = 0.0 if suite_s > LONG_SUITE_S else SHARE * OTHERS
    runs = FIRST + reruns + others + SHARE * effort.mutants + NOTING * min(1.0, effort.notes / 60)
    return min(OPEN_S + runs * suite_s, effort.row_minutes * 60.0)


@dataclass(slots=True)
class Forecast:
    """Seconds that are left of an audit.

    Attributes:
        names: [N] of each row what rows with suites of one length have in common: its repository.
        suites: row number -> seconds of its suite, as far as they are known.
    """

    names: Sequence[str]
    effort: Effort
    workers: int
    suites: dict[int, float] = field(default_factory=dict)
    _began: dict[int, float] = field(default_factory=dict)
    _took: dict[int, float] = field(default_factory=dict)

    def sample(self, most: int) -> list[int]:
        """Rows to be timed: the first of each repository of which nothing is known, then others."""
        known = {self.names[number] for number in self.suites}
        first: dict[str, int] = {}
        for number, name in enumerate(self.names):
            first.setdefault(name, number)
        chosen = [number for name, number in first.items() if name not in known]
        if len(self.names) <= self.workers:
            chosen = [number for number in range(len(self.names)) if number not in self.suites]
        return chosen[:most]

    def began(self, number: int, at: float) -> None:
        self._began[number] = at

    def ended(self, number: int, at: float) -> None:
        self._took[number] = at - self._began[number]

    def total_s(self) -> float:
        """Seconds of the whole, before it begins."""
        return self._left([row_seconds(self._suite_of(number), self.effort) for number in range(len(self.names))])

    def left_s(self, at: float) -> float:
        """Seconds from ``at`` on: the rows that are done say how much slower or faster all are than expected."""
        expected = [row_seconds(self._suite_of(number), self.effort) for number in range(len(self.names))]
        usual = fmean(expected) if expected else 0.0
        pace = (sum(self._took.values()) + usual) / (sum(expected[number] for number in self._took) + usual)
        most = self.effort.row_minutes * 60.0
        left = []
        for number, seconds in enumerate(expected):
            if number not in self._took:
                whole = min(most, pace * seconds)
                left.append(max(whole - (at - self._began.get(number, at)), FEWEST_S * whole))
        return self._left(left)

    def _left(self, rows: Sequence[float]) -> float:
        return max(sum(rows) / self.workers, max(rows, default=0.0))

    def _suite_of(self, number: int) -> float:
        if number in self.suites:
            return self.suites[number]
        alike = [seconds for other, seconds in self.suites.items() if self.names[other] == self.names[number]]
        return fmean(alike or list(self.suites.values()) or [SUITE_S])


def told_range(seconds: Sequence[float]) -> str:
    """ "0.6 s", "0.6 to 41.0 s"."""
    low, high = (f"{one:.1f}" for one in (min(seconds), max(seconds)))
    return f"{low} s" if low == high else f"{low} to {high} s"


def told_seconds(seconds: float) -> str:
    """ "50 seconds", "12 minutes", "3.5 hours"."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
