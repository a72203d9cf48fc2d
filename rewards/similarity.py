"""How near a patch comes to the gold patch: a shaped reward beside, or below, the tests' verdict."""

import difflib

from .patches import changes_by_file
from .score import Score

MAX_CHANGE_CHARS = 20_000
"""Longer changes of one file are compared by their lines: difflib by characters takes quadratic time."""


def patch_similarity(patch: str, gold: str) -> float:
    """Mean similarity of the changes that two patches make to the gold patch's files.

    Files that the gold patch does not touch are not looked at; one of its files that the patch leaves alone counts 0.

    Args:
        patch, gold: as ``git diff`` writes them.
    Returns:
        In [0, 1]; 1 for equal hunks; 0 where the gold patch changes no text.
    Source: SWE-RL, arXiv:2502.18449, as CWM uses it (arXiv:2510.02387): the ratio of difflib's SequenceMatcher
        without its heuristic for popular characters.
    """
    wanted, found = changes_by_file(gold), changes_by_file(patch)
    if not wanted:
        return 0.0
    return sum(_ratio(found.get(path, ""), change) for path, change in wanted.items()) / len(wanted)


def similarity_score(patch: str, gold: str) -> Score:
    """The similarity as the whole reward; ``passed`` only where the hunks are equal."""
    value = patch_similarity(patch, gold)
    return Score(
        value=value,
        passed=value == 1.0,
        breakdown={"similarity": value},
        detail=f"similarity to the gold patch {value:.3f}",
    )


def hybrid_score(tests: Score, patch: str, gold: str, *, threshold: float = 0.5) -> Score:
    """CWM's hybrid rule: tests that pass earn 1, else the similarity where it reaches the threshold, else 0.

    Args:
        tests: the verdict of the hidden tests; ``passed`` is taken over as it is.
        threshold: in [0, 1]; below it a failing patch earns nothing.
    Raises:
        ValueError: the threshold is no share.
    Source: arXiv:2510.02387, the auxiliary reward of SWE RL. There a patch above the threshold earns the threshold
        itself; here it earns its similarity, so that nearer is worth more.
    """
    if not 0.0 <= threshold <= 1.0:
        raise ValueError(f"threshold is {threshold}; it must be in [0, 1]")
    if tests.passed:
        return Score(value=1.0, passed=True, breakdown={**tests.breakdown, "similarity": 1.0}, detail=tests.detail)
    value = patch_similarity(patch, gold)
    kept = value if value >= threshold else 0.0
    detail = f"{tests.detail}; similarity {value:.3f} {'counts' if kept else f'is below {threshold:g}'}"
    return Score(
        value=kept, passed=False, breakdown={**tests.breakdown, "similarity": value}, detail=detail, ending=tests.ending
    )


def _ratio(one: str, other: str) -> float:
    if not one or not other:
        return 0.0
    if one == other:
        return 1.0
    long = max(len(one), len(other)) > MAX_CHANGE_CHARS
    pair = (one.splitlines(), other.splitlines()) if long else (one, other)
    return difflib.SequenceMatcher(None, *pair, autojunk=False).ratio()
