"""Named ways of turning a patch's evidence into a reward."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .score import Score
from .similarity import hybrid_score, similarity_score


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRubric:
    """A rule.

    Attributes:
        about: one line for people.
        needs_tests: whether the hidden tests have to run.
        judge: (tests' score or None, patch, gold patch) -> score.
    """

    about: str
    needs_tests: bool
    judge: Callable[[Score | None, str, str], Score]


def _tests(tests: Score | None, patch: str, gold: str) -> Score:
    assert tests is not None
    return tests


def _hybrid(tests: Score | None, patch: str, gold: str) -> Score:
    assert tests is not None
    return hybrid_score(tests, patch, gold)


SWE_RUBRICS: Mapping[str, PatchRubric] = {
    "tests": PatchRubric(about="1 where every hidden test passes, else 0", needs_tests=True, judge=_tests),
    "similarity": PatchRubric(
        about="similarity to the gold patch; no test runs",
        needs_tests=False,
        judge=lambda tests, patch, gold: similarity_score(patch, gold),
    ),
    "hybrid": PatchRubric(
        about="1 where every hidden test passes, else the similarity from 0.5 on", needs_tests=True, judge=_hybrid
    ),
}


def swe_rubric(name: str) -> PatchRubric:
    """The rubric of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in SWE_RUBRICS:
        raise ValueError(f"no rubric {name!r}; choose one of {', '.join(SWE_RUBRICS)}")
    return SWE_RUBRICS[name]
