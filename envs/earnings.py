"""Rewards given during an episode, and how they and the score become one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from ..rewards.score import Score, ScoredEnding, plain, verdict
from .tools.bounds import bounded

MAX_NAME = 200
"""Characters of a part's name."""
TOLERANCE = 1e-6
"""Of sums of rewards against their bounds."""


class Earnings:
    """What ``ToolEnv.reward`` was given in one episode."""

    def __init__(self) -> None:
        self._given: list[tuple[int, str, float]] = []

    def give(self, turn: int, name: str, value: float) -> None:
        """
        Args:
            turn: of the assistant, from 0.
        Raises:
            ValueError: it is not finite, has no name, or no turn has begun that could have earned it.
        """
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise ValueError("a reward needs a name, a short str, under which metrics and reports show it")
        if not math.isfinite(value):
            raise ValueError(f"the reward {name!r} is {value}; a finite number is expected")
        if turn < 0:
            raise ValueError(f"the reward {name!r} is given before the first turn; nothing can have earned it")
        self._given.append((turn, name, float(value)))

    @property
    def total(self) -> float:
        return math.fsum(value for _, _, value in self._given)

    def in_turn(self, turn: int) -> float:
        return math.fsum(value for place, _, value in self._given if place == turn)

    def by_turn(self) -> tuple[float, ...]:
        """The sum of each turn up to the last that earned anything; () where none did."""
        last = max((turn for turn, _, _ in self._given), default=-1)
        return tuple(self.in_turn(turn) for turn in range(last + 1))

    def parts(self) -> dict[str, float]:
        """Sums by name."""
        found: dict[str, float] = {}
        for _, name, value in self._given:
            found[name] = found.get(name, 0.0) + value
        return found


def score_of(found: Any, bounds: tuple[float, float]) -> Score:
    """What a hook ``score`` returned, as a Score: a verdict, or a number, which passes where it is the most there is.

    Raises:
        ValueError: it is none of these, or not finite.
    """
    if isinstance(found, Score):
        return _plain_score(found)
    found = plain(found)
    if isinstance(found, bool):
        return verdict(found)
    if isinstance(found, int | float):
        value = float(found)
        if not math.isfinite(value):
            raise ValueError(f"it returned {value}; a finite number is expected")
        return Score(value=value, passed=value >= bounds[1], breakdown={"score": value}, bounds=(-math.inf, math.inf))
    raise ValueError(f"it returned a {type(found).__name__}; a Score is expected, or a number, or a bool")


def _plain_score(found: Score) -> Score:
    """A Score with nothing but Python's own numbers and text in it.

    Raises:
        TypeError: something of it is of another kind.
    """
    value, passed = plain(found.value), plain(found.passed)
    if not isinstance(value, int | float) or not isinstance(passed, bool) or not isinstance(found.detail, str):
        told = ", ".join(f"{type(one).__name__}" for one in (value, passed, found.detail))
        raise TypeError(f"value, passed and detail of its Score are {told}; a number, a bool and a str are expected")
    if found.ending not in get_args(ScoredEnding):
        raise ValueError(f"the ending of its Score is {found.ending!r}; it is one of {get_args(ScoredEnding)}")
    parts = {"breakdown": found.breakdown, "others": found.others}
    numbers = {name: {key: plain(one) for key, one in part.items()} for name, part in parts.items()}
    for name, part in numbers.items():
        for key, one in part.items():
            if not isinstance(key, str) or len(key) > MAX_NAME or not isinstance(one, int | float):
                raise TypeError(
                    f"{name} of its Score has {key!r:.100}: {one!r:.100}; short names and numbers are expected"
                )
    floats = {name: {key: float(one) for key, one in part.items()} for name, part in numbers.items()}
    return replace(found, value=float(value), passed=passed, detail=bounded(found.detail), **floats)


def told_of(found: Any) -> str:
    """What a hook ``feedback`` returned, no longer than an answer may be.

    Raises:
        TypeError: it is no text.
    """
    if not isinstance(found, str):
        raise TypeError(f"it returned a {type(found).__name__}; a str is expected, or None")
    return bounded(found)


def whole(found: Any, earned: Earnings, bounds: tuple[float, float]) -> Score:
    """What a hook ``score`` returned and what the turns earned, as one Score with the parts of both.

    Raises:
        ValueError: it is no score, the sum is out of the bounds, or a name stands for a part of each.
    """
    score = score_of(found, bounds)
    total = score.value + earned.total
    low, high = bounds
    _refuse_outside(total, bounds)
    total = min(max(total, low), high)
    if not isinstance(plain(found), Score | bool):  # a number passes where the whole is the most there is
        score = replace(score, passed=total >= high)
    both = sorted(score.breakdown.keys() & earned.parts().keys())
    if both:
        raise ValueError(f"a turn's reward and a part of the score have one name, {both[0]!r}; name one otherwise")
    return replace(score, value=float(total), breakdown={**score.breakdown, **earned.parts()}, bounds=bounds)


def _refuse_outside(total: float, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if not low - TOLERANCE <= total <= high + TOLERANCE:
        raise ValueError(f"the reward is {total:g}, outside [{low:g}, {high:g}]; state what it can be in reward_bounds")


def added_of(found: Any, episodes: Sequence[Any], bounds: tuple[float, float], unit: bool) -> list[Mapping[str, float]]:
    """What a hook ``compare`` returned, checked.

    Args:
        bounds: of a whole reward.
        unit: the episodes' rewards are mapped from them to [0, 1] already.
    Raises:
        ValueError: it is not one mapping of finite numbers for each episode, a name is that of another part, or a
            reward leaves the bounds.
    """
    if not isinstance(found, Sequence) or len(found) != len(episodes):
        raise ValueError(f"it must return one mapping for each of {len(episodes)} episodes")
    for row, episode in zip(found, episodes, strict=True):
        named = isinstance(row, Mapping) and all(isinstance(name, str) for name in row)
        if not named or not all(math.isfinite(value) for value in row.values()):
            raise ValueError(f"it returned {row!r} for an episode; a mapping of names to finite numbers is expected")
        both = sorted(row.keys() & getattr(episode, "breakdown", {}).keys())
        if both:
            raise ValueError(f"the episode has a part {both[0]!r} already; name what comparing adds otherwise")
        before = getattr(episode, "reward", None)
        if before is not None:
            low, high = bounds
            _refuse_outside((low + before * (high - low) if unit else before) + math.fsum(row.values()), bounds)
    return [{name: float(value) for name, value in row.items()} for row in found]
