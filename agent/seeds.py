"""Seeds of the parts of a run."""

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from ..model.chat.messages import ToolSpec
from ..model.chat.protocols import Rendered
from ..model.chat.sampling import Sampling
from ..model.chat.turns import Delta
from .policy import Conversation, ObservingPolicy, Policy, Turn, streamed


def derive_seed(*parts: int | str) -> int:
    """A seed for a part of a run, the same for the same numbers and names; in [0, 2^31)."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest(), "big") >> 1


class SeededPolicy:
    """Gives each turn of an episode a seed of its own: the same one would draw the same noise in every turn, and turns
    that are not independent make the policy gradient wrong. Without a seed in the sampling nothing changes."""

    def __init__(self, policy: Policy, *place: int | str) -> None:
        """
        Args:
            place: of the episode in its run, such as the task's id and the number of the sample.
        """
        self._policy, self._place = policy, place
        self._num_seen = self._num_turns = 0

    @property
    def inner(self) -> Policy:
        """The policy whose turns it seeds."""
        return self._policy

    @property
    def place(self) -> tuple[int | str, ...]:
        """Of the episode in its run."""
        return self._place

    def beside(self, name: str) -> "SeededPolicy":
        """The same policy for another conversation of the episode, with seeds of its own."""
        return SeededPolicy(self._policy, *self._place, name)

    async def respond(self, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling) -> Turn:
        return await self._policy.respond(conversation, tools, self._seeded(conversation, sampling))

    async def stream(
        self, conversation: Conversation, tools: Sequence[ToolSpec], sampling: Sampling
    ) -> AsyncGenerator[Delta | Turn, None]:
        """See ``StreamingPolicy``."""
        async with aclosing(streamed(self._policy, conversation, tools, self._seeded(conversation, sampling))) as parts:
            async for part in parts:
                yield part

    def observed(self, conversation: Conversation, max_context: int) -> Rendered | None:
        return self._policy.observed(conversation, max_context) if isinstance(self._policy, ObservingPolicy) else None

    def _seeded(self, conversation: Conversation, sampling: Sampling) -> Sampling:
        if sampling.seed is None:
            return sampling
        return replace(sampling, seed=derive_seed(sampling.seed, *self._place, self._turns_in(conversation)))

    def _turns_in(self, conversation: Conversation) -> int:
        """How many turns there were; of a conversation that has grown since the last time only the rest is counted."""
        if len(conversation) < self._num_seen:
            self._num_seen = self._num_turns = 0
        for place in range(self._num_seen, len(conversation)):
            self._num_turns += isinstance(conversation[place], Turn)
        self._num_seen = len(conversation)
        return self._num_turns
