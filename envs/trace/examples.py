"""Traces as data: what one row holds, and which are kept."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from ...errors import TaskError
from ...model.chat.trace import START_MARKER, Frame, Trace

_Item = TypeVar("_Item")
SPOILT = frozenset({"events", "timeout", "died", "output", "tracer", "settrace", "threads", "fork", "subprocess"})
SPOILT_MORE = frozenset({"socket", "descriptor", "recursion", "compile"})
"""Flags with which a trace is not kept: something is missing, or a second run may differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One trace of a data set.

    Attributes:
        trace: what is learned.
        kind: "library" or "programs" or "small-programs".
        origin: where it is from: "toolz==1.0.0 toolz/itertoolz.py:take", or the seed of a generated program.
        function: whose call begins the trace.
        cut: whether some value was longer than is shown.
    """

    trace: Trace
    kind: str
    origin: str
    function: str
    cut: bool = False

    @property
    def id(self) -> str:
        """Of the content alone: the same trace has the same id wherever it is from."""
        return hashlib.sha256(json.dumps(frames_to_json(self.trace)).encode()).hexdigest()[:20]

    @property
    def num_characters(self) -> int:
        """Of the trace as a model reads it, or nearly: context, sources and values."""
        frames = sum(
            len(frame.source) + len(frame.value or "") + sum(len(n) + len(v) + 6 for n, v in frame.locals.items())
            for frame in self.trace.frames
        )
        return len(self.trace.context) + frames + 2 * len(self.trace.frames)

    def to_row(self) -> dict[str, Any]:
        """Plain columns."""
        return {
            "id": self.id,
            "kind": self.kind,
            "origin": self.origin,
            "function": self.function,
            "cut": self.cut,
            "num_frames": len(self.trace.frames),
            "num_characters": self.num_characters,
            "context": self.trace.context,
            "frames": json.dumps(frames_to_json(self.trace)[1:]),
            "ended": self.trace.ended,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Example":
        """Inverse of ``to_row``.

        Raises:
            TaskError: columns are missing or of another form.
        """
        try:
            frames = tuple(
                Frame(event=event, source=source, locals=shown or {}, value=value)
                for event, source, shown, value in json.loads(row["frames"])
            )
            trace = Trace(context=row["context"], frames=frames, ended=bool(row["ended"]))
            return cls(trace=trace, kind=row["kind"], origin=row["origin"], function=row["function"], cut=row["cut"])
        except (KeyError, ValueError, TypeError) as error:
            raise TaskError(f"a row of traces cannot be read ({error}); files of `verigym tasks traces` can") from None


def frames_to_json(trace: Trace) -> list[Any]:
    """The context, then [event, source, locals or null, value] of each frame."""
    frames = [[frame.event, frame.source, dict(frame.locals) or None, frame.value] for frame in trace.frames]
    return [trace.context, *frames]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which traces are kept.

    Attributes:
        min_frames: fewer are trivial: a call, a line and a return tell what the source tells.
        max_frames, max_characters: more are too long.
    """

    min_frames: int = 4
    max_frames: int = 400
    max_characters: int = 24_000

    def objection(self, example: Example) -> str:
        """Why a trace is not kept: "trivial", "too_long", "not_ended", "outside_context"; "" where it is."""
        if not example.trace.ended:
            return "not_ended"
        if len(example.trace.frames) < self.min_frames:
            return "trivial"
        if len(example.trace.frames) > self.max_frames or example.num_characters > self.max_characters:
            return "too_long"
        return "" if _shows_its_context(example.trace) else "outside_context"


def _shows_its_context(trace: Trace) -> bool:
    """Whether each line that a frame shows stands in the context: a model could not know it otherwise."""
    known = {line.replace(START_MARKER, "") for line in trace.context.split("\n")}
    return all(frame.source.rstrip("\n") in known for frame in trace.frames)


@dataclass(slots=True)
class Sieve:
    """Keeps what is wanted and new, and counts the rest by reason."""

    wanted: Wanted = field(default_factory=Wanted)
    counts: Counter[str] = field(default_factory=Counter)
    _known: set[str] = field(default_factory=set)

    def kept(self, examples: Iterable[Example]) -> Iterator[Example]:
        for example in examples:
            self.counts["recorded"] += 1
            reason = self.wanted.objection(example)
            if not reason and example.id in self._known:
                reason = "duplicate"
            self.counts[reason or "kept"] += 1
            if not reason:
                self._known.add(example.id)
                yield example


def stratified(
    items: Sequence[_Item], num: int, *, group: Callable[[_Item], Hashable], rng: random.Random
) -> list[_Item]:
    """``num`` of the items, or all, drawn at random and as evenly over groups as they have items; in their order.

    The first ``num`` of a library's traces would be those of its first tests, and of few functions.
    """
    numbers: dict[Hashable, int] = {}
    groups = [numbers.setdefault(group(item), len(numbers)) for item in items]
    return [items[place] for place in stratified_places(groups, num, rng=rng)]


def stratified_places(groups: Sequence[int], num: int, *, rng: random.Random) -> list[int] | range:
    """``stratified`` over places alone, in some 60 bytes each.

    Args:
        groups: [N], of each place a number below 2**64.
    Returns:
        at most ``num`` places, rising.
    """
    count = len(groups)
    if count <= num:
        return range(count)
    _, firsts, members = np.unique(np.asarray(groups, dtype=np.uint64), return_index=True, return_inverse=True)
    by_group = np.argsort(members, kind="stable")  # the places of one group after those of another, each in order
    ends = np.cumsum(np.bincount(members))
    places, turns = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    drawn = np.empty(count)
    start = 0
    for one in np.argsort(firsts, kind="stable"):  # groups in the order in which they first occur
        own = by_group[ends[one - 1] if one else 0 : ends[one]].tolist()
        rng.shuffle(own)
        stop = start + len(own)
        places[start:stop], turns[start:stop] = own, range(len(own))
        drawn[start:stop] = [rng.random() for _ in own]
        start = stop
    chosen = np.lexsort((places, drawn, turns))[:num]
    return np.sort(places[chosen]).tolist()
