"""What an engine counts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """The state of an engine now, and totals since it was made.

    Attributes:
        num_running, num_waiting: requests in the batch, and those that wait to be.
        pages_used: pages that a running request holds. The others are free, of which pages_cached still hold a prefix
            for later requests.
        prompt_tokens_computed, prompt_tokens_reused: prompt tokens that were fed to the decoder, and those whose keys
            and values were there already.
        generated_tokens: tokens sampled.
        num_preemptions: times a running request gave its pages to others, to be computed again later.
    """

    num_running: int
    num_waiting: int
    pages_used: int
    pages_free: int
    pages_cached: int
    prompt_tokens_computed: int
    prompt_tokens_reused: int
    generated_tokens: int
    num_preemptions: int
