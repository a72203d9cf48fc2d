"""Sampling settings and what an engine returns."""

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "abort"]
StopReason = int | str
TopLogprobs = tuple[tuple[int, float], ...]
"""Of one position: (token id, nats), the likeliest first."""

MOST_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to draw one completion.

    Temperature comes first, then top_k, then top_p of what that left; min_p removes more of it.

    Attributes:
        max_tokens: most tokens to draw, the stop token included; > 0.
        max_context: most tokens of the prompt and the completion together; None: as many as the engine takes.
        temperature: 0 means greedy; log-probabilities are of the distribution at this temperature.
        top_p: 1.0 keeps the whole distribution.
        top_k: 0 keeps the whole distribution.
        min_p: least probability, as a share of the likeliest token's; 0 keeps the whole distribution.
        stop: texts that end the completion when it holds one, beside the stop tokens.
        seed: makes the draw independent of what else is in the batch; None draws from the engine's stream.
        num_top_logprobs: report so many of the likeliest tokens at each position, as ``Completion.top_logprobs``.
        raw_logprobs: report ``Completion.raw_logprobs`` too.
    """

    max_tokens: int = 256
    max_context: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    num_top_logprobs: int = 0
    raw_logprobs: bool = False

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if self.max_context is not None and self.max_context < 1:
            raise ValueError(f"max_context is {self.max_context}; it must be at least 1, or None for the engine's own")
        if not 0.0 <= self.temperature < float("inf"):  # NaN fails too
            raise ValueError(f"temperature is {self.temperature}; it must be finite and not negative (0 is greedy)")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p is {self.top_p}; it must be in (0, 1]")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}; it must not be negative (0 keeps all)")
        if not 0.0 <= self.min_p <= 1.0:
            raise ValueError(f"min_p is {self.min_p}; it must be in [0, 1] (0 keeps all)")
        if isinstance(self.stop, str) or "" in self.stop:
            raise ValueError(f"stop is {self.stop!r}; give a tuple of texts that are not empty")
        if not 0 <= self.num_top_logprobs <= MOST_TOP_LOGPROBS:
            raise ValueError(f"num_top_logprobs is {self.num_top_logprobs}; it must be 0 to {MOST_TOP_LOGPROBS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionPart:
    """What came of a completion since the part before it. The parts of one, joined, are its ``Completion``.

    Attributes:
        token_ids, logprobs, policy_version, raw_logprobs, top_logprobs, stop_reason: as ``Completion``.
        finish_reason: None in all parts but the last.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: tuple[int, ...]
    raw_logprobs: tuple[float, ...] | None = None
    top_logprobs: tuple[TopLogprobs, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: StopReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What was sampled after a prompt.

    Attributes:
        token_ids: [T] sampled ids, the stop token included where one was drawn, and all tokens of a stop text.
        logprobs: [T] nats, of the distribution each token was drawn from (after temperature); at temperature 0,
            of the distribution at temperature 1.
        policy_version: [T] version of the weights that sampled each token.
        finish_reason: "stop" a stop token was drawn or a stop text completed, "length" the budget ended it, "abort"
            the engine did.
        stop_reason: the stop token's id or the stop text, where one ended it.
        raw_logprobs: [T] nats, of the model's own distribution: temperature 1, nothing left out. None: not asked for.
        top_logprobs: [T] the likeliest tokens of the model's own distribution. None: not asked for.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    policy_version: tuple[int, ...]
    finish_reason: FinishReason
    stop_reason: StopReason | None = None
    raw_logprobs: tuple[float, ...] | None = None
    top_logprobs: tuple[TopLogprobs, ...] | None = None

    def __post_init__(self) -> None:
        if not len(self.token_ids) == len(self.logprobs) == len(self.policy_version):
            raise ValueError(
                f"a completion of {len(self.token_ids)} tokens has {len(self.logprobs)} log-probabilities and "
                f"{len(self.policy_version)} versions; every token needs one of each"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptScore:
    """How likely a prompt is under the model's own distribution (temperature 1, nothing left out).

    Attributes:
        logprobs: [T] nats, of each token after those before it; the first is None, nothing comes before it.
        top_logprobs: [T] the likeliest tokens in its place, the first None. None: not asked for.
        policy_version: version of the weights.
    """

    logprobs: tuple[float | None, ...]
    top_logprobs: tuple[TopLogprobs | None, ...] | None = None
    policy_version: int
