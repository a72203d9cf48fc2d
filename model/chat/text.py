"""The text of a completion as it comes, and the names of its tokens."""

from collections.abc import Sequence

from .incremental import Decode, IncrementalText
from .sampling import Completion, CompletionPart

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class AnswerText:
    """Parts of a completion to parts of its text: whole characters, without the stop token, and without the stop text
    and what its last token wrote beyond it."""

    def __init__(self, decode: Decode, stops: Sequence[str] = (), *, keep_stop: bool = False) -> None:
        """
        Args:
            stops: the stop texts of the request; what may become one is held back.
            keep_stop: leave the stop text, or the stop token's, in.
        """
        self._text = IncrementalText(decode)
        self._stops, self._keep_stop = tuple(stops), keep_stop
        self._held = ""

    def push(self, part: CompletionPart | Completion) -> str:
        """The text that became certain with this part; after the last one nothing is left."""
        ended = part.finish_reason is not None
        by_token = ended and isinstance(part.stop_reason, int) and not self._keep_stop
        self._held += self._text.push(part.token_ids[:-1] if by_token else part.token_ids)
        if ended:
            self._held += self._text.flush()
        if isinstance(part.stop_reason, str):
            end = self._held.find(part.stop_reason)
            certain = len(self._held) if end < 0 else end + len(part.stop_reason) * self._keep_stop
            new, self._held = self._held[:certain], ""
            return new
        certain = len(self._held) if ended else len(self._held) - overlap(self._held, self._stops)
        new, self._held = self._held[:certain], self._held[certain:]
        return new


def overlap(text: str, words: Sequence[str]) -> int:
    """The length of the longest end of ``text`` that one of the words begins with, without being that word."""
    longest = min(len(text), max((len(word) for word in words), default=1) - 1)
    for length in range(longest, 0, -1):
        end = text[len(text) - length :]
        if any(len(word) > length and word.startswith(end) for word in words):
            return length
    return 0


class TokenNames:
    """Tokens as strings: their text where they have one, else "token_id:N", vLLM's form."""

    def __init__(self, decode: Decode | None, *, as_ids: bool = False) -> None:
        """
        Args:
            decode: text of ids; None where the model has no tokenizer.
            as_ids: name every token by its id.
        """
        self._decode = None if as_ids else decode

    def __call__(self, token_id: int) -> str:
        text = self._decode([token_id]) if self._decode is not None else _REPLACEMENT
        return f"token_id:{token_id}" if _REPLACEMENT in text else text

    def utf8(self, token_id: int) -> list[int] | None:
        """The token's bytes; None where they are no text of their own."""
        name = self(token_id)
        return None if name == f"token_id:{token_id}" else list(name.encode("utf-8", "replace"))
