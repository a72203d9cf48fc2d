"""What stays together when some documents are held out: functions, programs and tasks, as numbers."""

import hashlib
import random
from array import array
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

Group = tuple[str, ...]
"""A function, a program, or a task."""


def digest(group: Hashable) -> int:
    """A number of 64 bits for a group, the same in every process. Among a million two are the same once in 37 million
    times; they would be held out, or learned, together."""
    text = repr(group).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


@dataclass(slots=True)
class Grouped:
    """The groups of every item, in 8 bytes each.

    Attributes:
        own: of each item, the group that it belongs to.
        parts: of all items one after another, the groups that they hold parts of besides.
        ends: of each item, where its parts end.
    """

    own: array = field(default_factory=lambda: array("Q"))
    parts: array = field(default_factory=lambda: array("Q"))
    ends: array = field(default_factory=lambda: array("Q"))

    def add(self, groups: Iterable[Group]) -> None:
        """The groups of the next item, its own first."""
        own, *parts = map(digest, groups)
        self.own.append(own)
        self.parts.extend(part for part in parts if part != own)
        self.ends.append(len(self.parts))

    def hold_out(self, share: float, rng: random.Random) -> np.ndarray:
        """Groups, drawn at random, whose items are about ``share`` of all; none where there is one group.

        A group of which others hold more parts than it has items costs more than it measures: such ones come last.

        Returns:
            uint64, rising.
        """
        groups, sizes = np.unique(_numbers(self.own), return_counts=True)
        if len(groups) < 2:
            return groups[:0]
        found, counts = np.unique(_numbers(self.parts), return_counts=True)
        held = np.zeros(len(groups), dtype=np.int64)
        places = np.minimum(np.searchsorted(groups, found), len(groups) - 1)
        known = groups[places] == found
        held[places[known]] = counts[known]
        order = array("Q", range(len(groups)))
        rng.shuffle(order)
        shuffled = np.frombuffer(order, dtype=np.uint64).astype(np.int64)
        costly = (held > sizes)[shuffled]
        shuffled = np.concatenate([shuffled[~costly], shuffled[costly]])[:-1]
        wanted = max(1, round(share * len(self.own)))
        before = np.cumsum(sizes[shuffled]) - sizes[shuffled]
        return np.sort(groups[shuffled[before < wanted]])

    def sides(self, held: np.ndarray) -> np.ndarray:
        """[N] int8 of each item: 1 measures, 0 is learned, -1 holds a part of what measures and is neither."""
        sides = np.zeros(len(self.own), dtype=np.int8)
        is_held = np.isin(_numbers(self.parts), held)
        items = np.repeat(np.arange(len(self.own)), np.diff(_numbers(self.ends).astype(np.int64), prepend=0))
        sides[items[is_held]] = -1
        sides[np.isin(_numbers(self.own), held)] = 1
        return sides


def _numbers(column: Sequence[int]) -> np.ndarray:
    return np.frombuffer(column, dtype=np.uint64) if len(column) else np.zeros(0, dtype=np.uint64)  # type: ignore[arg-type]
