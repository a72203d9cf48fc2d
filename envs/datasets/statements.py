"""Statements that are like held-out ones, where many may be made of one template."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

SHINGLE_WORDS = 8
MIN_OVERLAP = 0.5
MIN_WORDS = 3
"""A statement of fewer stands among other words by chance."""
FEW = 5
"""Statements of which nobody can say what in them is a template: these must be alike by more."""
MIN_OVERLAP_OF_FEW = 0.8
MAX_SHARED, MAX_SHARE = 2, 0.02
"""In so many statements, or such a share of them, a run of words may stand and still tell one of them."""
MIN_TELLING = 4
"""Runs of words that two statements share by chance, or because one blank of a template was filled in alike."""


def words_of(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def shingles_of(words: Sequence[str]) -> set[tuple[str, ...]]:
    """Runs of eight words; all of them where there are fewer."""
    if 0 < len(words) < SHINGLE_WORDS:
        return {tuple(words)}
    return {tuple(words[n : n + SHINGLE_WORDS]) for n in range(len(words) - SHINGLE_WORDS + 1)}


class Statements:
    """Held-out statements, found again word for word or nearly so.

    Runs of words that several statements share are a template's, and tell none of them.
    """

    def __init__(self, held_out: Iterable[tuple[str, str]], others: Iterable[str] = ()) -> None:
        """
        Args:
            held_out: (name, statement) each.
            others: statements that may be learned.
        """
        mine = {words: name for name, text in held_out if (words := words_of(text))}
        every = {*mine, *map(words_of, others)} - {()}
        shared = Counter(shingle for words in every for shingle in shingles_of(words))
        most = max(MAX_SHARED, int(MAX_SHARE * len(every)))
        self._template = {shingle for shingle, count in shared.items() if count > most}
        self._overlap = MIN_OVERLAP if len(every) >= FEW else MIN_OVERLAP_OF_FEW
        self._whole = mine
        self._sizes: dict[str, int] = {}
        self._names: dict[tuple[str, ...], list[str]] = {}
        self._plain: dict[str, str] = {}
        for words, name in mine.items():
            telling = shingles_of(words) - self._template
            if len(words) < SHINGLE_WORDS:
                continue
            if len(telling) < MIN_TELLING:
                self._plain[f" {' '.join(words)} "] = name
                continue
            self._sizes[name] = self._sizes.get(name, 0) + len(telling)
            for shingle in telling:
                self._names.setdefault(shingle, []).append(name)

    def same(self, text: str) -> str | None:
        """The held-out statement that a text is, word for word."""
        return self._whole.get(words_of(text))

    def near(self, text: str) -> str | None:
        """The one with which a text shares half of what tells the shorter one."""
        return self.same(text) or self._alike(text, shorter=True) or self.within(text)

    def within(self, text: str) -> str | None:
        """The one that a text holds: half of what tells it; a short one as the text, or as a line of it."""
        for part in (text, *text.split("\n")):
            if len(words := words_of(part)) >= MIN_WORDS and words in self._whole:
                return self._whole[words]
        if self._plain:
            spaced = f" {' '.join(words_of(text))} "
            for plain, name in self._plain.items():
                if plain in spaced:
                    return name
        return self._alike(text, shorter=False)

    def _alike(self, text: str, *, shorter: bool) -> str | None:
        mine = shingles_of(words_of(text)) - self._template
        shared = Counter(name for shingle in mine for name in self._names.get(shingle, ()))
        for name, count in shared.most_common():
            size = min(len(mine), self._sizes[name]) if shorter else self._sizes[name]
            if count >= max(MIN_TELLING, self._overlap * size):
                return name
        return None
