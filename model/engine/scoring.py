"""Scoring of a prompt in chunks, so that others' tokens can be sampled in between."""

from collections.abc import Sequence

import numpy as np

from ..chat.sampling import PromptScore, TopLogprobs
from .forward import Forward


class Scoring:
    """One prompt's own log-probabilities, under one version of the weights. Only one may be under way."""

    def __init__(
        self, forward: Forward, prompt_ids: Sequence[int], num_top: int, step_tokens: int, version: int
    ) -> None:
        self._forward, self._num_top, self._step_tokens, self._version = forward, num_top, step_tokens, version
        self._ids = np.asarray(prompt_ids, np.int64)
        self._start = 0
        self._logprobs: list[float | None] = [None]
        self._tops: list[TopLogprobs | None] = [None]

    def advance(self) -> tuple[int, PromptScore | None]:
        """Feed one chunk. Returns (its tokens, the score after the last one)."""
        end = min(self._start + self._step_tokens, len(self._ids))
        chunk = self._ids[self._start : end]
        logprobs, tops = self._forward.score(chunk, self._start, self._ids[self._start + 1 : end + 1], self._num_top)
        self._logprobs += logprobs
        self._tops += tops
        self._start = end
        if end < len(self._ids):
            return len(chunk), None
        top_logprobs = tuple(self._tops) if self._num_top else None
        told = PromptScore(logprobs=tuple(self._logprobs), top_logprobs=top_logprobs, policy_version=self._version)
        return len(chunk), told

    def drop(self) -> None:
        """Nobody waits for it any more; its keys and values go."""
        self._forward.drop_prompt()
