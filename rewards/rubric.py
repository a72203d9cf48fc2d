"""``Rubric``: a reward of named, weighted parts, each a function of the episode, or of all episodes of its group."""

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from .score import Score, plain

Call = Callable[..., Awaitable[Any]]
"""(name, function, reader, **evidence) -> what the reader makes of what the function returns: how the owner of a rubric
calls functions, synchronous and asynchronous ones."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One function of a rubric.

    Attributes:
        name: in metrics, verdicts and reports.
        function: of the evidence that its parameters name; returns a number within the bounds, or a bool. May be async.
        weight: its share of the reward, beside the other parts'; negative takes away, 0 is only shown.
        bounds: the least and the most that it returns.
    """

    name: str
    function: Callable[..., Any]
    weight: float = 1.0
    bounds: tuple[float, float] = (0.0, 1.0)

    @cached_property
    def wanted(self) -> frozenset[str] | None:
        """Names of its parameters; None: it takes whatever there is."""
        parameters = inspect.signature(self.function).parameters.values()
        if any(one.kind is one.VAR_KEYWORD for one in parameters):
            return None
        return frozenset(one.name for one in parameters)

    def chosen(self, evidence: Mapping[str, Any]) -> Mapping[str, Any]:
        """Of the evidence what the function's parameters name."""
        return evidence if self.wanted is None else {k: v for k, v in evidence.items() if k in self.wanted}

    def checked(self, value: Any) -> float:
        """
        Raises:
            ValueError: it is no number within the bounds.
        """
        value, (low, high) = plain(value), self.bounds
        if not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(f"the part {self.name!r} is {value!r}; a number within [{low:g}, {high:g}] is expected")
        return float(value)

    def checked_each(self, found: Any, count: int) -> list[float]:
        """Of a comparison of ``count`` episodes: a sequence of numbers, or an array.

        Raises:
            ValueError: it is not one number within the bounds for each episode.
        """
        found = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(found, Sequence) or isinstance(found, str | bytes) or len(found) != count:
            raise ValueError(f"{self.name!r} compares {count} episodes; it must return a number for each")
        return [self.checked(value) for value in found]


def part(
    function: Callable[..., Any],
    weight: float = 1.0,
    *,
    name: str | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Part:
    """A part of a rubric; its name is the function's where none is given."""
    return Part(name=name or getattr(function, "__name__", "part"), function=function, weight=weight, bounds=bounds)


class Rubric:
    """The weighted mean of its parts: the sum of weight times value, over the sum of the weights' sizes.

    A function of an episode names what it wants of the evidence: ``task``, ``submission``, ``messages``, ``env``. One
    of a group names ``task``, ``episodes`` (the group's trajectories) and ``env``, and returns a number for each: a
    comparison, which counts once all of them have ended. Until then, and where an episode stands alone, its share is 0.
    """

    def __init__(
        self,
        *parts: Part | Callable[..., Any],
        compare: Sequence[Part | Callable[..., Any]] = (),
        passed: str | None = None,
        threshold: float = 1.0,
    ) -> None:
        """
        Args:
            parts: functions of one episode.
            compare: functions of a group of episodes.
            passed: the part that says whether the episode passed; None: the first.
            threshold: from which value on of that part it did.
        Raises:
            ValueError: no part, a name twice, no weight above 0, or ``passed`` names none.
        """
        self.parts = tuple(one if isinstance(one, Part) else part(one) for one in parts)
        self.comparisons = tuple(one if isinstance(one, Part) else part(one) for one in compare)
        names = [one.name for one in (*self.parts, *self.comparisons)]
        if not self.parts:
            raise ValueError("a rubric needs a function of one episode, which says whether it passed")
        if len(set(names)) < len(names):
            raise ValueError(f"parts have the names {names}; give each its own with part(function, name=...)")
        self._whole = sum(abs(one.weight) for one in (*self.parts, *self.comparisons))
        if not self._whole > 0:
            raise ValueError("every weight is 0, so every reward would be; give a part a weight above 0")
        self._passed = self.parts[0].name if passed is None else passed
        if self._passed not in [one.name for one in self.parts]:
            raise ValueError(f"passed is {passed!r}; it must be one of {', '.join(one.name for one in self.parts)}")
        self._threshold = threshold

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the most that a reward can be, comparisons included."""
        ends = [sorted(one.weight * end for end in one.bounds) for one in (*self.parts, *self.comparisons)]
        return sum(low for low, _ in ends) / self._whole, sum(high for _, high in ends) / self._whole

    async def score(self, call: Call, **evidence: Any) -> Score:
        """The score of one episode, without its comparisons.

        Raises:
            ValueError: a function returns no number within its bounds.
        """
        values = {}
        for one in self.parts:
            values[one.name] = await call(one.name, one.function, one.checked, **one.chosen(evidence))
        total = sum(one.weight * values[one.name] for one in self.parts) / self._whole
        low, high = self.bounds
        return Score(
            value=total,
            passed=values[self._passed] >= self._threshold,
            breakdown=values,
            bounds=(min(low, total), max(high, total)),
        )

    async def compare(
        self, call: Call, *, task: Any, episodes: Sequence[Any], env: Any = None
    ) -> Sequence[Mapping[str, float]]:
        """What the comparisons add to each episode's reward, by name.

        Raises:
            ValueError: a function returns not one number within its bounds for each episode.
        """
        added: list[dict[str, float]] = [{} for _ in episodes]
        evidence = {"task": task, "episodes": episodes, "env": env}
        for one in self.comparisons:
            read = partial(one.checked_each, count=len(episodes))
            found = await call(one.name, one.function, read, **one.chosen(evidence))
            for row, value in zip(added, found, strict=True):
                row[one.name] = one.weight * value / self._whole
        return added
