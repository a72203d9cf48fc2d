"""Text of tokens as they come: whole characters only, and the first stop text in it. Free of torch."""

from collections.abc import Callable, Sequence

Decode = Callable[[Sequence[int]], str]
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_MOST_BEGUN = 3  # bytes of a character that is not whole; tokenizers that fall back to bytes replace each by itself


class IncrementalText:
    """The text of a growing list of ids. A character whose bytes are not all there yet is held back."""

    def __init__(self, decode: Decode) -> None:
        """
        Args:
            decode: text of ids, invalid UTF-8 replaced by U+FFFD.
        """
        self._decode = decode
        # Ids before _start are settled. Those from there to _read are decoded again as context: some tokenizers
        # write a token otherwise at the start of a text.
        self._ids: list[int] = []
        self._read = 0
        self._given = 0

    def push(self, token_ids: Sequence[int]) -> str:
        """The characters that became certain with these ids."""
        if not token_ids:
            return ""
        self._ids.extend(token_ids)
        text = self._decode(self._ids)
        begun = min(len(text) - len(text.rstrip(_REPLACEMENT)), _MOST_BEGUN)
        if begun:  # the beginning of a character, or wrong bytes: the next tokens will tell
            certain = len(text) - begun
            new = text[self._given : certain]
            self._given = max(self._given, certain)
            return new
        new = text[self._given :]
        self._ids, self._read = self._ids[self._read :], len(self._ids) - self._read
        self._given = len(self._decode(self._ids))
        return new

    def flush(self) -> str:
        """What is still held back, as it stands: nothing more will come."""
        text = self._decode(self._ids)
        new, self._given = text[self._given :], len(text)
        return new


class StopText:
    """Watches a completion for stop texts."""

    def __init__(self, decode: Decode, stops: Sequence[str]) -> None:
        self._text = IncrementalText(decode)
        self._stops = tuple(stops)
        self._kept = max(map(len, stops)) - 1
        self._tail = ""

    def push(self, token_id: int) -> str | None:
        """The stop text that ends first in the completion, now that this token is in it; None while there is none."""
        seen = self._tail + self._text.push((token_id,))
        found = [(seen.index(stop) + len(stop), -len(stop), stop) for stop in self._stops if stop in seen]
        self._tail = seen[len(seen) - self._kept :] if self._kept else ""
        return min(found)[2] if found else None
