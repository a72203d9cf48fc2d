"""Verdicts of test runs. Trap 14: absent is failed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.rewards.swe import TestReport, grade_tests

GOOD = TestReport(statuses={"a": "passed", "b": "xfailed", "c": "passed"}, complete=True, exit_code=0)


def test_all_named_tests_passed():
    score = grade_tests(GOOD, ["a"], ["b", "c"])
    assert (score.value, score.passed) == (1.0, True)
    assert score.breakdown == {"fail_to_pass": 1.0, "pass_to_pass": 1.0, "resolved": 1.0}


def test_a_broken_test_is_counted_and_named():
    report = replace(GOOD, statuses={"a": "passed", "b": "failed", "c": "passed"}, exit_code=1)
    score = grade_tests(report, ["a"], ["b", "c"])
    assert (score.value, score.passed) == (0.0, False)
    assert score.breakdown == {"fail_to_pass": 1.0, "pass_to_pass": 0.5, "resolved": 0.0}
    assert score.detail == "b: failed"


@pytest.mark.parametrize(
    "report",
    [
        replace(GOOD, statuses={}),
        replace(GOOD, statuses={"a": "passed", "b": "xfailed"}),
        replace(GOOD, complete=False),
        replace(GOOD, canaries_ok=False),
        replace(GOOD, exit_code=None),
        replace(GOOD, exit_code=1),
        replace(GOOD, exit_code=2),
        replace(GOOD, statuses={**GOOD.statuses, "elsewhere": "error"}),
        replace(GOOD, statuses={**GOOD.statuses, "a": "skipped"}),
        replace(GOOD, statuses={**GOOD.statuses, "a": "xpassed"}),
        replace(GOOD, statuses={**GOOD.statuses, "a": "PASSED"}),
    ],
)
def test_what_cannot_be_believed_is_no_pass(report):
    assert grade_tests(report, ["a"], ["b", "c"]).value == 0.0


def test_a_failure_elsewhere_does_not_hide_what_is_named():
    report = replace(GOOD, statuses={**GOOD.statuses, "elsewhere": "failed"}, exit_code=1)
    assert grade_tests(report, ["a"], ["b", "c"]).passed


def test_nothing_named_is_an_error():
    with pytest.raises(ValueError, match="nothing to grade"):
        grade_tests(GOOD, [], [])


STATUSES = st.dictionaries(
    st.sampled_from("abcdef"), st.sampled_from(["passed", "failed", "error", "skipped", "xfailed", "xpassed"])
)


@given(STATUSES, st.sampled_from([None, 0, 1, 2]), st.booleans(), st.sampled_from("abcdef"))
def test_losing_a_status_never_improves_the_score(statuses, exit_code, complete, lost):
    def grade(kept):
        report = TestReport(statuses=kept, complete=complete, exit_code=exit_code)
        return grade_tests(report, ["a", "b"], ["c", "d"])

    fewer = {test: status for test, status in statuses.items() if test != lost}
    assert grade(fewer).value <= grade(statuses).value
