"""Which of several engines answers a prompt: the one that has computed most of it, unless it has too much to do."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from .columns import Ids

BLOCK = 64
"""Tokens of a block, the unit in which prompts are compared."""


class PrefixRouter:
    """Remembers which engine has seen which beginnings of prompts.

    An engine keeps the keys and values of what it has computed. A turn's prompt begins with all of the turn before, and
    the episodes of a group with the same task, so both are cheap where they were.
    """

    def __init__(self, *, most_blocks: int = 1 << 18) -> None:
        """
        Args:
            most_blocks: to remember; those that were not seen for longest are forgotten.
        """
        self._seen: OrderedDict[int, int] = OrderedDict()
        self._most_blocks = most_blocks

    def choose(self, prompt_ids: Sequence[int], loads: Sequence[int]) -> int:
        """The place in ``loads`` of the engine to ask.

        Args:
            prompt_ids: of the prompt.
            loads: requests in work at each engine; at least one engine.
        Returns:
            of engines with a load within a quarter, or two requests, of the least, the one that has seen most of the
            prompt; of those that have seen as much the one with the least load, then the first.
        """
        least = min(loads)
        known = [0] * len(loads)
        for count, block in enumerate(_blocks(prompt_ids), start=1):
            engine = self._seen.get(block)
            if engine is None:
                break
            if engine < len(loads):
                known[engine] = count
        able = [place for place, load in enumerate(loads) if load <= max(least + 2, 1.25 * least)]
        return max(able, key=lambda place: (known[place], -loads[place], -place))

    def remember(self, prompt_ids: Sequence[int], engine: int, sampled: Sequence[int] = ()) -> None:
        """An engine has computed these, from the beginning of a prompt on, and what it has sampled behind them."""
        for block in _blocks(prompt_ids, sampled):
            self._seen[block] = engine
            self._seen.move_to_end(block)
        while len(self._seen) > self._most_blocks:
            self._seen.popitem(last=False)

    def forget(self, engine: int) -> None:
        """An engine has lost what it had."""
        self._seen = OrderedDict((block, one) for block, one in self._seen.items() if one != engine)


def _blocks(*parts: Sequence[int]) -> Iterator[int]:
    """The hash of each whole block with all before it; about 1 ms for 128k tokens, which are made no objects."""
    data = b"".join(Ids.of(part).tobytes() for part in parts)
    before, size = 0, BLOCK * Ids.itemsize
    for start in range(0, len(data) - size + 1, size):
        before = hash((before, data[start : start + size]))
        yield before
