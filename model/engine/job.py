"""What a batch is asked to do, and what it tells of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..chat.incremental import StopText
from ..chat.sampling import CompletionPart, PromptScore, Sampling, TopLogprobs
from .request import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What a job that was taken out of the batch had by then.

    Attributes:
        token_ids, versions: [T] int64; logprobs, raw_logprobs: [T] float32.
        tops: [T] the likeliest tokens, where they were asked for.
        num_sent: tokens its caller has heard of.
        order: when it first came in; those that came first are served first.
    """

    token_ids: np.ndarray
    logprobs: np.ndarray
    raw_logprobs: np.ndarray
    versions: np.ndarray
    tops: list[TopLogprobs]
    num_sent: int
    order: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One prompt to complete.

    Attributes:
        stop_text: watches for stop texts; None where there are none.
        streamed: every token is handed out as it is drawn.
        tag: the caller's.
        sampled: what is there of the completion, where it was begun before.
    """

    prompt_ids: Sequence[int]
    sampling: Sampling
    stop_token_ids: Sequence[int]
    stop_text: StopText | None = None
    streamed: bool = False
    seed: int
    tag: Any
    sampled: Sampled | None = None

    def known(self) -> np.ndarray:
        """The prompt and what is there of the completion, int64."""
        prompt = np.asarray(self.prompt_ids, np.int64)
        return prompt if self.sampled is None else np.concatenate((prompt, self.sampled.token_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreJob:
    """One prompt to score."""

    prompt_ids: Sequence[int]
    num_top: int
    tag: Request[PromptScore]


AnyJob = Job | ScoreJob

Progress = tuple[Any, CompletionPart]
"""(a job's tag, what is new of its completion). The log-probabilities of broken weights are NaN."""
