"""Pass@k, intervals and summaries against counts worked by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.evals.metrics import (
    bootstrap_interval,
    breakdown,
    family_summary,
    interval_of,
    mcnemar_p,
    paired_difference,
    pass_at_k,
    task_pass_rates,
    wilson_interval,
)
from verigym.evals.verdict import Verdict


def verdict(task_id, passed, index=0, ending="answered", **fields):
    score = None if passed is None else float(passed)
    return Verdict(task_id=task_id, index=index, passed=passed, score=score, ending=ending, **fields)


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_pass(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0), (0, 0, 1)])
def test_pass_at_k_that_does_not_exist_raises(n, c, k):
    with pytest.raises(ValueError, match="does not exist"):
        pass_at_k(n, c, k)


def test_bootstrap_interval_is_that_of_the_binomial():
    low, high = bootstrap_interval([1.0] * 30 + [0.0] * 70)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 100)
    assert low == pytest.approx(0.3 - half, abs=0.015)
    assert high == pytest.approx(0.3 + half, abs=0.015)


def test_bootstrap_repeats_with_its_seed_alone():
    values = [0.0, 0.25, 0.5, 1.0, 0.3]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3, resamples=50) != bootstrap_interval(values, seed=4, resamples=50)


def test_bootstrap_in_chunks_draws_all_resamples():
    values = list(itertools.islice(itertools.cycle([0.0, 1.0]), 5000))  # 800 resamples a chunk
    low, high = bootstrap_interval(values, resamples=2000)
    assert 0.485 < low < 0.487 < 0.513 < high < 0.515


def test_wilson_interval_of_known_counts():
    assert wilson_interval(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson_interval(10, 10) == pytest.approx((0.7224672, 1.0), abs=1e-6)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)


def test_an_interval_of_agreeing_tasks_is_no_point():
    assert interval_of([1.0] * 10) == wilson_interval(10, 10)
    assert interval_of([0.0] * 10) == wilson_interval(0, 10)
    assert interval_of([1.0, 0.0] * 5) == bootstrap_interval([1.0, 0.0] * 5)


def test_intervals_of_nothing_raise():
    for function in (bootstrap_interval, lambda values: wilson_interval(0, len(values))):
        with pytest.raises(ValueError, match="at least one task"):
            function([])


def test_paired_difference_is_taken_by_task():
    # 10 of 100 tasks improve and none gets worse: taken as unpaired runs, the interval would hold 0.
    before = [verdict(f"t{i}", i < 20) for i in range(100)]
    after = [verdict(f"t{i}", i < 30) for i in reversed(range(100))]
    difference = paired_difference(before, after)
    assert difference.mean == pytest.approx(0.1)
    assert 0.03 < difference.low < 0.06
    assert 0.14 < difference.high < 0.17
    assert difference.num_tasks == 100


def test_paired_difference_takes_only_tasks_that_both_graded():
    before = [verdict("a", True), verdict("b", None, ending="sandbox_failure"), verdict("c", False)]
    after = [verdict("a", True), verdict("b", True), verdict("d", True)]
    assert paired_difference(before, after).num_tasks == 1
    with pytest.raises(ValueError, match="share no graded task"):
        paired_difference(before, [verdict("z", True)])


def test_infrastructure_failures_are_in_no_denominator():
    """Trap 18: a crash is masked and counted, never a 0."""
    summary = family_summary(
        [
            verdict("a", True, num_turns=3, num_format_errors=1),
            verdict("b", False, num_turns=1),
            verdict("c", None, ending="sandbox_failure"),
            verdict("d", None, ending="ungradable"),
        ]
    )
    assert summary["pass@1"] == 0.5
    assert summary["n"] == 2
    assert (summary["num_tasks"], summary["num_predictions"]) == (4, 4)
    assert (summary["num_ungradable"], summary["num_infrastructure_failures"]) == (1, 1)
    assert summary["format_error_rate"] == 0.25
    assert summary["endings"] == {"answered": 2, "sandbox_failure": 1, "ungradable": 1}


def test_tasks_weigh_the_same_whatever_samples_were_lost():
    verdicts = [verdict("a", True, index) for index in range(4)]
    verdicts += [verdict("b", False, 0), verdict("b", None, 1, ending="policy_failure")]
    assert task_pass_rates(verdicts) == {"a": 1.0, "b": 0.0}
    assert family_summary(verdicts)["pass@1"] == 0.5


def test_summary_has_the_pass_at_k_that_every_task_has_samples_for():
    verdicts = [verdict("a", index == 0, index) for index in range(4)]
    verdicts += [verdict("b", False, index) for index in range(4)]
    summary = family_summary(verdicts)
    assert summary["pass@2"] == pytest.approx(0.25)  # a: 1 - C(3,2)/C(4,2) = 1/2
    assert summary["pass@4"] == pytest.approx(0.5)
    assert "pass@8" not in summary
    assert "pass@4" not in family_summary(verdicts[:-1])


def test_summary_of_nothing_graded_has_no_number():
    summary = family_summary([verdict("a", None, ending="grader_failure")])
    assert summary["pass@1"] is None
    assert summary["interval"] is None
    assert family_summary([])["n"] == 0


def test_mcnemar_by_hand():
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(5, 0) == pytest.approx(2 / 32)
    assert mcnemar_p(1, 7) == mcnemar_p(7, 1) == pytest.approx(2 * 9 / 256)
    assert mcnemar_p(4, 4) == 1.0


def test_pass_at_k_is_unbiased_by_simulation():
    """Averaged over draws of n samples, the estimate is the chance that one of k passes."""
    rng = np.random.default_rng(3)
    rate, samples, k = 0.3, 10, 4
    estimates = [pass_at_k(samples, int(passed), k) for passed in rng.binomial(samples, rate, size=40_000)]
    assert np.mean(estimates) == pytest.approx(1 - (1 - rate) ** k, abs=0.005)


@pytest.mark.parametrize(
    ("interval", "at_least"),
    [
        (lambda values: wilson_interval(sum(values), len(values)), 0.93),
        (lambda values: bootstrap_interval(values, resamples=500), 0.92),
    ],
)
def test_intervals_cover_the_truth_as_often_as_they_say(interval, at_least):
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(600):
        values = (rng.random(80) < 0.4).astype(float)
        low, high = interval(values)
        hits += low <= 0.4 <= high
    assert at_least <= hits / 600 <= 0.985


def test_a_breakdown_has_a_part_for_each_value_of_a_label():
    verdicts = [
        Verdict(
            task_id=f"t{i}",
            index=0,
            passed=i < 2,
            score=None,
            ending="answered",
            labels={"level": str(i % 2), "repo": "r"},
        )
        for i in range(4)
    ]
    parts = breakdown(verdicts)
    assert list(parts) == ["level"]
    assert [(of["pass@1"], of["n"]) for of in parts["level"].values()] == [(0.5, 2), (0.5, 2)]


def test_the_mean_score_and_its_parts_are_of_what_was_graded():
    verdicts = [
        Verdict(task_id="a", index=0, passed=True, score=1.0, ending="answered", breakdown={"tests": 1.0, "form": 1.0}),
        Verdict(task_id="b", index=0, passed=False, score=0.25, ending="answered", breakdown={"tests": 0.5}),
        verdict("c", None, ending="grader_failure"),
    ]
    summary = family_summary(verdicts)
    assert summary["mean_score"] == pytest.approx(0.625)
    assert summary["parts"] == {"form": 1.0, "tests": 0.75}
    assert family_summary(verdicts[2:])["mean_score"] is None
    assert Verdict.from_json(verdicts[1].to_json()) == verdicts[1]
