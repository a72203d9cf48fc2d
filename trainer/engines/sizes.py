"""What the engines of a run must hold."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the engines must hold.

    Attributes:
        concurrency: requests at once, over all of them.
        max_context: tokens of a prompt and its completion.
        request_seconds: after which an answer is given up.
        seed: of draws whose request has none.
        attention: what attention runs on.
        freezes: whether they can change weights with turns in flight; else these end first.
        dtype: of the weights.
        padding: ids that the head has and the tokenizer does not know.
    """

    concurrency: int
    max_context: int
    request_seconds: float
    seed: int = 0
    attention: str = "auto"
    freezes: bool = True
    dtype: str = "float32"
    padding: Sequence[int] = ()
