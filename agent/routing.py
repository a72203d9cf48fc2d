"""Which of several engines answers a prompt: the one that has computed most of it, unless it has too much to do."""

from collections import OrderedDict
from collections.abc import Sequence

from .columns import BLOCK, Ids, hash_blocks


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
        able = [load <= max(least + 2, 1.25 * least) for load in loads]
        # From the end: a turn meets the turn before behind what is new. A block's hash is that of all before it too.
        for block in reversed(Ids.of(prompt_ids).block_hashes()):
            engine = self._seen.get(block)
            if engine is not None and engine < len(loads) and able[engine]:
                self._seen.move_to_end(block)
                return engine
        return min((load, place) for place, load in enumerate(loads) if able[place])[1]

    def remember(self, prompt_ids: Sequence[int], engine: int, sampled: Sequence[int] = ()) -> None:
        """An engine has computed these, from the beginning of a prompt on, and what it has sampled behind them."""
        prompt = Ids.of(prompt_ids)
        hashes = prompt.block_hashes()
        # A copy of the prompt's end: only the next turn grows the prompt's own array.
        end = Ids(prompt[len(hashes) * BLOCK :]) + sampled
        hashes += hash_blocks(end, hashes[-1:])
        # From the end, so that ends are forgotten before beginnings, up to what this engine was known to have.
        for block in reversed(hashes):
            if self._seen.get(block) == engine:
                self._seen.move_to_end(block)
                break
            self._seen[block] = engine
            self._seen.move_to_end(block)
        while len(self._seen) > self._most_blocks:
            self._seen.popitem(last=False)

    def forget(self, engine: int) -> None:
        """An engine has lost what it had."""
        self._seen = OrderedDict((block, one) for block, one in self._seen.items() if one != engine)
