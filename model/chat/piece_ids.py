"""Pieces of text to ids, as a tokenizer of transformers encodes the whole they make, each id with its writer.

Pieces are not encoded one by one where that can be helped: many tokenizers write a word otherwise at the start of a
text (SentencePiece's put a blank before it), or take blanks after a special token away.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from .encoding import valid_text
from .protocols import Rendered

Piece = tuple[str, str]
"""(text, who wrote it: a role, or "template")."""

_BEFORE = "\n"  # that no tokenizer joins with a letter


class PieceIds:
    """Of one tokenizer.

    Attributes:
        special: spellings of its special tokens, the longest first: those it names, and those it only marks as such.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        named = {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
        self.special = sorted(named, key=len, reverse=True)

    def encode(self, pieces: Sequence[Piece], *, after: str = "") -> Rendered:
        """Ids of the pieces' joined text. Special tokens come from the template's pieces alone: a message that spells
        one is encoded as text.

        Args:
            after: what stands before the pieces, such as the end of the turn before them; its ids are left out.
        """
        pieces = [(valid_text(text), role) for text, role in pieces if text]
        if any(role != "template" and self._spells(text) for text, role in pieces):
            return self._one_by_one(pieces, after)
        whole = after + "".join(text for text, _ in pieces)
        found = self._tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
        starts = list(accumulate((len(text) for text, _ in pieces), initial=len(after)))[:-1]
        ids: list[int] = []
        roles: list[str] = []
        for token_id, (start, end) in zip(found["input_ids"], found["offset_mapping"], strict=True):
            if start < len(after) and end <= len(after):
                continue
            first = bisect_right(starts, start) - 1
            ids.append(token_id)
            # A token that two wrote is the template's: nobody is asked to learn it.
            shared = first >= 0 and end > start and bisect_right(starts, end - 1) - 1 != first
            roles.append("template" if first < 0 or shared else pieces[first][1])
        return Rendered(token_ids=tuple(ids), roles=tuple(roles))

    def continued(self, text: str, before: str) -> list[int]:
        """Ids of a text that goes on after the template's ``before``, whose own ids stay as they are."""
        text = valid_text(text)
        if not self._spells(text):
            head, whole = self._ids(before, special=True), self._ids(before + text, special=True)
            if whole[: len(head)] == head:
                return whole[len(head) :]
        return self._inner(text, special=False)

    def _one_by_one(self, pieces: Sequence[Piece], after: str) -> Rendered:
        ids: list[int] = []
        roles: list[str] = []
        for text, role in pieces:
            special = role == "template"
            new = self._inner(text, special=special) if ids or after else self._ids(text, special=special)
            ids += new
            roles += [role] * len(new)
        return Rendered(token_ids=tuple(ids), roles=tuple(roles))

    def _inner(self, text: str, *, special: bool) -> list[int]:
        """Ids of a text that does not begin the whole."""
        before, whole = self._ids(_BEFORE, special=special), self._ids(_BEFORE + text, special=special)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        return self._ids(text, special=special)

    def _spells(self, text: str) -> bool:
        return any(token in text for token in self.special)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=not special))
