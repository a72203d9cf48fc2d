"""What a run's figures are worth: rates with the graders' errors, classes, and that the interval covers the truth."""

import numpy as np
import pytest

from verigym.envs.audit.certificate import SCORES, Certificate
from verigym.evals.metrics import wilson_interval
from verigym.evals.verdict import Verdict
from verigym.evals.worth import corrected_rate, error_rates, strata_of, worth_of
from verigym.evals.worth_simulated import covered
from verigym.evals.worth_told import told_worth, worth_rows


def certificate(task, kind, accepted=0, refused=0, tried=10):
    measured = {
        "mutants": {"tried": tried, "resolved": accepted, "told_apart": accepted},
        "choices": {"tried": 4, "refused": refused},
    }
    return Certificate(
        instance_id=task,
        row_sha256="",
        scores=dict.fromkeys(SCORES, 0.0),
        basis=dict.fromkeys(SCORES, "measured"),
        kind=kind,
        reason="",
        measured=measured if tried else {},
    )


def verdict(task, passed):
    return Verdict(task_id=task, index=0, passed=passed, score=float(passed), ending="submitted", family="swe")


def test_rates_are_of_what_was_tried():
    assert error_rates(certificate("a", "weak", accepted=3, refused=1)) == (0.3, 0.25)
    assert error_rates(certificate("a", "unflagged", tried=0)) is None


def test_without_errors_the_rate_is_the_rate():
    passed = np.array([1.0, 0.0, 1.0, 1.0] * 20)
    zero = np.zeros(80)
    estimate, low, high = corrected_rate(passed, zero, zero, strata_of(["sound"] * 80))
    assert estimate == 0.75
    assert low < 0.75 < high


def test_known_errors_are_taken_out_exactly():
    passed = np.array([1.0] * 60 + [0.0] * 40)  # 0.6 = 0.5 * (1 - 0.1) + 0.5 * 0.3
    estimate, *_ = corrected_rate(passed, np.full(100, 0.3), np.full(100, 0.1), strata_of(["weak"] * 100))
    assert estimate == pytest.approx(0.5)


def test_verdicts_that_say_nothing_leave_every_rate_possible():
    passed = np.array([1.0, 0.0] * 20)
    _, low, high = corrected_rate(passed, np.full(40, 0.6), np.full(40, 0.4), strata_of(["weak"] * 40))
    assert high - low > 0.9


@pytest.mark.parametrize("passed", [0.0, 1.0])
def test_where_all_tasks_agree_the_interval_is_no_point(passed):
    found = corrected_rate(np.full(6, passed), np.zeros(6), np.zeros(6), strata_of(["sound"] * 6))
    assert found == pytest.approx((passed, *wilson_interval(6 * passed, 6)))
    _, low, high = corrected_rate(np.full(6, passed), np.full(6, 0.2), np.zeros(6), strata_of(["weak"] * 6))
    assert high - low > 0.2


def test_small_classes_share_one_and_what_was_not_audited_has_its_own():
    assert list(strata_of(["sound"] * 8 + ["weak", "narrow", "", ""])) == [2] * 8 + [0, 0, 1, 1]


def test_a_report_says_official_sound_and_corrected_figures():
    kinds = ["sound"] * 30 + ["weak"] * 10
    certificates = {
        f"t{n}": certificate(f"t{n}", kind, accepted=5 if kind == "weak" else 0) for n, kind in enumerate(kinds)
    }
    verdicts = [verdict(f"t{n}", n % 2 == 0) for n in range(50)]
    worth = worth_of(verdicts, certificates, against=[verdict(f"t{n}", False) for n in range(50)])
    assert (worth["audited"], worth["num_tasks"]) == (40, 50)
    assert worth["sound"]["pass@1"] == 0.5
    assert worth["classes"]["weak"] == {"pass@1": 0.5, "interval": worth["classes"]["weak"]["interval"], "n": 10}
    assert worth["errors"]["accepts_wrong"]["rate"] == pytest.approx(10 * 0.5 / 40)
    others = (0.5 - 0.125) / (1 - 0.125)  # not audited: the rates of all
    assert worth["corrected"]["pass@1"] == pytest.approx((30 * 0.5 + 10 * 0.0 + 10 * others) / 50)
    assert worth["against_on_sound"]["mean"] == 0.5
    assert worth["against_on_sound"]["n"] == 30
    assert len(worth_rows(worth)) == 5
    assert "on sound tasks: 0.500" in told_worth(worth)


def test_nothing_measured_is_said_by_none():
    worth = worth_of([verdict("a", True)], {"a": certificate("a", "unflagged", tried=0)})
    assert worth["corrected"] is None
    assert worth["sound"] is None


@pytest.mark.parametrize(
    ("num_tasks", "rate", "settings"),
    [
        (100, 0.5, {"errors": 1.0, "shift": (0.1, 0.1, -0.25)}),
        pytest.param(60, 0.5, {"errors": 0.0, "shift": (0.0, 0.0, 0.0)}, marks=pytest.mark.slow),
        pytest.param(200, 0.4, {"errors": 1.0, "shift": (0.0, 0.0, 0.0), "audited": 0.5}, marks=pytest.mark.slow),
    ],
)
def test_the_interval_covers_the_truth(num_tasks, rate, settings):
    assert 0.92 <= covered(num_tasks, rate, **settings) <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("num_tasks", [60, 150, 500])
@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (0.1, 0.1, -0.25)])
def test_the_interval_covers_the_truth_over_sizes_rates_and_correlations(num_tasks, rate, shift):
    assert 0.92 <= covered(num_tasks, rate, errors=1.0, shift=shift, runs=600) <= 0.98
