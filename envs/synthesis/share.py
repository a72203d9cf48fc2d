"""Which tests of a long suite stand for it: a share, drawn with a seed."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .probe_sample import spread
from .probing import file_of

SUITE_S = 2.0
"""Seconds of a suite that is run whole; of a longer one a share of about so many is."""

MOST_COLLECTED, DRAWN = 5000, 1000
"""Tests of a suite of which every file is collected; of a larger one, files are drawn until they hold so many."""

MOST_REACHING, MOST_OTHERS, MOST_FILES = 200, 100, 6
"""PASS_TO_PASS of a share: most tests that reach the bug's function, most of the others, and of how many files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much of a suite its share is.

    Attributes:
        seed: what it was drawn with.
        collected, files: how many tests the suite has, in how many files.
        chosen, chosen_files: of these the ones that stand for it: they passed each time, in time.
    """

    seed: int
    collected: int
    files: int
    chosen: int
    chosen_files: int

    def __str__(self) -> str:
        return (
            f"a share of {self.chosen} of {self.collected} tests, of {self.chosen_files} of {self.files} files, stands "
            f"for a suite that takes longer than --suite-budget"
        )


def drawn_files(
    counts: Mapping[str, int], seed: int, *, most: int = MOST_COLLECTED, drawn: int = DRAWN
) -> tuple[str, ...]:
    """The files that stand for all, in the order given: all of them, or where they hold more than ``most`` tests some
    that hold about ``drawn``; a file that holds more than that by itself comes last.

    Args:
        counts: file -> how many tests it has.
    """
    if sum(counts.values()) <= most:
        return tuple(counts)
    order = sorted(counts)
    random.Random(f"{seed}/files").shuffle(order)
    order.sort(key=lambda path: counts[path] > drawn)
    held, chosen = 0, set[str]()
    for path in order:
        if held >= drawn:
            break
        chosen.add(path)
        held += counts[path]
    return tuple(path for path in counts if path in chosen)


def near_files(failing: Sequence[str], reaching: Sequence[str]) -> tuple[str, ...]:
    """The files of some failing tests, and of a share those that have most of the tests that reach the bug too."""
    own = dict.fromkeys(map(file_of, failing))
    others = Counter(path for path in map(file_of, reaching) if path not in own)
    return (*own, *(path for path, _ in others.most_common(max(0, MOST_FILES - len(own)))))


def beside(passing: Sequence[str], reaching: Sequence[str], word: str) -> tuple[str, ...]:
    """The tests of a share that have to pass beside a bug: those that reach its function, and a sample of the others.

    Args:
        passing: the share, or its tests in some files, in running order.
        reaching: the ones that enter the function and do not fail.
        word: draws the sample.
    """
    reached = set(reaching)
    near = [test for test in passing if test in reached]
    others = [test for test in passing if test not in reached]
    kept = {*spread(near, word)[:MOST_REACHING], *spread(others, word)[:MOST_OTHERS]}
    return tuple(test for test in passing if test in kept)
