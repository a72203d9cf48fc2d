"""Log-probabilities in the two forms of OpenAI's interface."""

from collections.abc import Sequence
from typing import Any

from ..chat.incremental import Decode, IncrementalText
from ..chat.sampling import Completion, CompletionPart, PromptScore, TopLogprobs
from ..chat.text import TokenNames

LEAST = -9999.0
"""What stands for a probability of 0, which JSON cannot say."""


def chosen_logprobs(part: CompletionPart | Completion, *, raw: bool) -> tuple[float, ...]:
    """Of the sampled tokens: the model's own distribution, or the one they were drawn from."""
    if raw:
        assert part.raw_logprobs is not None
        return part.raw_logprobs
    return part.logprobs


class CompletionLogprobs:
    """The ``logprobs`` object of completions: parallel lists, and where in the text each token begins."""

    def __init__(self, names: TokenNames, decode: Decode | None, num_top: int) -> None:
        self._names, self._num_top = names, num_top
        self._text = None if decode is None else IncrementalText(decode)
        self._offset = 0

    def prompt(self, token_ids: Sequence[int], score: PromptScore) -> dict[str, Any]:
        """Of the prompt's own tokens; the first has none."""
        tops = score.top_logprobs or (None,) * len(token_ids)
        return self._rows(token_ids, score.logprobs, tops)

    def part(self, token_ids: Sequence[int], logprobs: Sequence[float], tops: Sequence[TopLogprobs] | None) -> dict:
        """Of sampled tokens."""
        return self._rows(token_ids, logprobs, tops or (None,) * len(token_ids))

    def _rows(
        self,
        token_ids: Sequence[int],
        logprobs: Sequence[float | None],
        tops: Sequence[TopLogprobs | None],
    ) -> dict[str, Any]:
        offsets = []
        for token_id in token_ids:
            offsets.append(self._offset)
            self._offset += 0 if self._text is None else len(self._text.push((token_id,)))
        return {
            "tokens": [self._names(token_id) for token_id in token_ids],
            "token_logprobs": [None if value is None else _finite(value) for value in logprobs],
            "top_logprobs": [self._top(top) for top in tops] if self._num_top else None,
            "text_offset": offsets,
        }

    def _top(self, top: TopLogprobs | None) -> dict[str, float] | None:
        return None if top is None else {self._names(token_id): _finite(value) for token_id, value in top}


def joined(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The parts of one completion's ``logprobs`` as one."""
    return {
        key: None if parts[0][key] is None else [value for part in parts for value in part[key]] for key in parts[0]
    }


def chat_logprobs(
    names: TokenNames, token_ids: Sequence[int], logprobs: Sequence[float], tops: Sequence[TopLogprobs] | None
) -> list[dict[str, Any]]:
    """The ``logprobs.content`` of chat: an object for each token."""
    rows = []
    for index, (token_id, value) in enumerate(zip(token_ids, logprobs, strict=True)):
        top = tops[index] if tops is not None else ()
        rows.append(_entry(names, token_id, value) | {"top_logprobs": [_entry(names, *one) for one in top]})
    return rows


def _entry(names: TokenNames, token_id: int, logprob: float) -> dict[str, Any]:
    return {"token": names(token_id), "logprob": _finite(logprob), "bytes": names.utf8(token_id)}


def _finite(logprob: float) -> float:
    return max(logprob, LEAST)
