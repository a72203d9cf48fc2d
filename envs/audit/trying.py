"""Right and wrong solutions under the hidden tests: which right ones are refused, which wrong ones accepted."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..synthesis.steady import LONG_SUITE_S
from .bench import Bench, Outcome
from .certificate import Finding
from .further_tests.notes import Notebook, is_plain
from .further_tests.searching import tell_apart_by_calls
from .solutions.mutants import mutants
from .solutions.rewrites import Choice, choices, spelled_in
from .solutions.slips import slips, spoken_of
from .solutions.structure import structures
from .solutions.variants import Files, Solved, Variant, diff_of

NOTICED = 4
"""Mutants counted as noticed beforehand: two of three that are not say little."""
NOTICED_KINDS = 1
"""Kinds of slips, and functions whose results are spoilt, counted so: there are few, each with a reason."""
SLIPS = 12
"""Slips tried, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What the hidden tests said of variants.

    Attributes:
        score: the share in [0, 1] that they judged wrongly.
        measured: counts, for the certificate.
        findings: of those judged wrongly.
        neutral: right solutions that the tests accept, for what they are to accept later.
    """

    score: float
    measured: Mapping[str, Any]
    findings: Sequence[Finding]
    neutral: Sequence[Variant] = ()


async def try_choices(bench: Bench, solved: Solved, gold: Outcome, *, first: Collection[str]) -> Tried:
    """Other choices and other ways, all of them right.

    Args:
        gold: of the reference.
        first: tests that are run before the others.
    """
    made, ways = choices(solved), structures(solved)
    # Of a long suite the tests that come to none of it are left out: they see such a variant hardly ever.
    outcomes = await bench.run(
        [*(one.variant.files for one in made), *(one.files for one in ways)],
        first=first,
        rest=gold.own_s <= LONG_SUITE_S,
    )
    findings: list[Finding] = []
    for choice, outcome in zip(made, outcomes):
        if not outcome.resolved and is_refusal(choice, outcome, bench.tests, bench.row.FAIL_TO_PASS):
            findings.append(_refused(choice.variant, outcome, "the tests refuse a choice that nobody was told of"))
    refused = len(findings)
    accepted = []
    for way, outcome in zip(ways, outcomes[len(made) :]):
        if outcome.resolved:
            accepted.append(way)
        else:
            findings.append(_refused(way, outcome, "the tests refuse the same written another way"))
    spelled = sum(not one.spelled or _is_spelled(one, bench.tests) for one in made)
    measured = {
        "choices": {"tried": len(made), "spelled": spelled, "refused": refused},
        "ways": {"tried": len(ways), "refused": len(ways) - len(accepted)},
    }
    score = refused / len(made) if made else 0.0
    return Tried(score=score, measured=measured, findings=findings, neutral=accepted)


def is_refusal(choice: Choice, outcome: Outcome, tests: Files, deciding: Collection[str]) -> bool:
    """Whether it is the choice that a failing test refuses. A test that passes at base says what held before."""
    if choice.spelled:
        return _is_spelled(choice, tests)
    return not outcome.failing.keys().isdisjoint(deciding)


def _is_spelled(choice: Choice, tests: Files) -> bool:
    return bool(spelled_in(choice.spelled, choice.variant.kind, tests))


def _refused(variant: Variant, outcome: Outcome, what: str) -> Finding:
    test, why = next(iter(outcome.failing.items()), ("", outcome.ended))
    return Finding(kind="narrow", what=what, where=test, shown=f"{variant.kind}: {variant.what}\n{why[:300]}")


async def try_wrong_solutions(
    bench: Bench,
    solved: Solved,
    gold: Outcome,
    neutral: Sequence[Variant],
    *,
    first: Collection[str],
    most: int,
    notes: int,
) -> Tried:
    """Wrong solutions; those count that resolve, and that some call tells from the reference.

    Args:
        neutral: right solutions; a call on which one of them differs says nothing.
        most: mutants, at most.
        notes: copies of tests, at most.
    """
    spoilt = mutants(solved, most=most, seed=bench.row.instance_id, tests=bench.tests)
    slipped = [one for one in slips(solved, most=SLIPS) if all(one.files != other.files for other in spoilt)]
    tried = [*spoilt, *slipped]
    outcomes = await bench.run([one.files for one in tried], first=first)
    alive = [one for one, outcome in zip(tried, outcomes) if outcome.resolved]
    told: dict[int, str] = {}
    if alive and bench.can_vary_runs:
        notebook = await Notebook.make(bench, gold, neutral, most=notes)
        told = await notebook.tell_apart([one.files for one in alive])
        slipped_ids = set(map(id, slipped))
        left = [
            number
            for number, one in enumerate(alive)
            if number not in told or (id(one) in slipped_ids and not is_plain(told[number]))
        ]
        if left:
            called = await tell_apart_by_calls(bench, neutral, [alive[number] for number in left], most=notes)
            for number, how in ((left[place], how) for place, how in called.items()):
                if number not in told or is_plain(how):
                    told[number] = how
    told = {number: said for number, one in enumerate(alive) if (said := spoken_of(one, solved.statement))} | told
    proven = {id(alive[number]): how for number, how in sorted(told.items())}
    findings = [
        Finding(
            kind="weak",
            what=f"a wrong solution resolves ({one.kind}: {one.what})",
            shown=f"{proven[id(one)]}\n{diff_of(bench.gold, one.files)}".strip(),
        )
        for one in alive
        if id(one) in proven
    ]
    measured = {"mutants": {"tried": len(tried), "resolved": len(alive), "told_apart": len(proven)}}
    plainly = {one for one, how in proven.items() if is_plain(how)}
    score = share_of(spoilt, slipped, proven, plainly)
    return Tried(score=score, measured=measured, findings=findings)


def share_of(
    spoilt: Sequence[Variant], slipped: Sequence[Variant], proven: Collection[int], plainly: Collection[int]
) -> float:
    """The largest share: of all mutants; of the kinds of slips, those of which one is accepted; of the functions whose
    results are spoilt, those of which all that is given is accepted.

    Args:
        proven: ``id`` of the variants that are accepted, and told from the reference.
        plainly: of these, those that are told by two results; of slips no others count, as each weighs much.
    """
    kinds: dict[str, list[bool]] = defaultdict(list)
    functions: dict[str, list[bool]] = defaultdict(list)
    for one in slipped:
        kinds[one.kind].append(id(one) in plainly)
    for one in spoilt:
        if one.kind == "another value":
            functions[one.what.partition(" gives ")[0]].append(id(one) in proven)
    accepted = sum(id(one) in proven for one in spoilt)
    unlooked = sum(len(one) > 1 and all(one) for one in functions.values())
    return max(
        accepted / (len(spoilt) + NOTICED),
        sum(map(any, kinds.values())) / (len(kinds) + NOTICED_KINDS),
        unlooked / (len(functions) + NOTICED_KINDS),
    )
