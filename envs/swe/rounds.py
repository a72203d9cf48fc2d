"""Rounds: which tests run again and when as twins, and what is said of it. Drawn and judged outside of any sandbox."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...rewards.swe import PASSING, TestReport

ROUNDS = 10
"""Runs of the tests that decide, half of them twins: a test that is forged by chance, by a count, or in any other way
that does not know the twins is caught but for one choice in 252 (10 over 5)."""

MORE_ROUNDS = 12
"""The same where the tests' first rounds were in doubt: one choice in 924 each of three times."""

MOST_IN_ALL = 48
"""Most tests that take part in every round; of further ones each is run twice, once as a twin."""

MAX_OTHERS = 12
"""Most PASS_TO_PASS tests that are run again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What running tests again as twins has shown.

    Attributes:
        forged: what gives a forgery away; "" where nothing does.
        untrusted: tests that passed and of which no twin could be made, so that nothing speaks for them.
    """

    forged: str = ""
    untrusted: tuple[str, ...] = ()


def plan_rounds(deciding: Sequence[str], others: Sequence[str], rounds: int = ROUNDS) -> list[dict[str, int]]:
    """What each round runs: test id -> 0 as it is, or the number of its twin; consecutive twins differ."""
    dice = random.SystemRandom()
    plans: list[dict[str, int]] = [{} for _ in range(rounds)]
    often = set(dice.sample(list(deciding), min(len(deciding), MOST_IN_ALL)))
    for test in (*deciding, *others):
        places = dice.sample(range(rounds), rounds if test in often else 2)
        first = dice.randrange(1, 1 << 20)
        for n, place in enumerate(places):
            plans[place][test] = first + n // 2 if n % 2 else 0
    return plans


def judge_rounds(
    plans: Sequence[Mapping[str, int]],
    outcomes: Sequence[Mapping[str, Any]],
    deciding: set[str],
    untwinned: set[str],
) -> tuple[str, str]:
    """(what gives a forgery away, why the tests cannot be said to pass again); "" for neither."""
    trouble = "" if len(outcomes) == len(plans) else "a round is missing"
    for plan, found in zip(plans, outcomes, strict=False):
        statuses = found.get("statuses", {})
        if found.get("tampered"):
            return f"{found['tampered']} was replaced while the tests ran again", ""
        if found and found.get("finished") and not found.get("canaries_ok"):
            return "a planted test had the wrong outcome when the tests ran again", ""
        for test, number in plan.items():
            if test in untwinned:
                continue
            status = statuses.get(test)
            if number and status in PASSING:
                return f"{test} passed although it was made to fail", ""
            if status is None and test in deciding:
                trouble = trouble or f"{test} passed, and did not run to its end when it was run again"
            elif not number and status not in PASSING and test in deciding:
                trouble = trouble or f"{test} passed, and did not when it was run again"
        if not found.get("finished"):
            trouble = trouble or "the tests passed, and did not run to their end when they were run again"
    return "", trouble


def choose_twins(
    report: TestReport, fail_to_pass: Sequence[str], pass_to_pass: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Passed tests that are run again: (all of FAIL_TO_PASS, a sample of PASS_TO_PASS); where only the latter are
    named they decide."""
    dice = random.SystemRandom()
    first = tuple(test for test in dict.fromkeys(fail_to_pass) if report.statuses.get(test) == "passed")
    others = [test for test in dict.fromkeys(pass_to_pass) if report.statuses.get(test) == "passed"]
    # A test whose code is of no test file has no twin; one that has is worth more here.
    others = [test for test in others if test not in report.strange] or others
    chosen = tuple(dice.sample(others, min(len(others), MAX_OTHERS)))
    return (first, chosen) if first else (chosen, ())
