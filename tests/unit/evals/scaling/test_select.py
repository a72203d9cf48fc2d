"""Choosing one of k samples."""

import pytest

from verigym.evals.scaling.report import scaling_report, told_scaling
from verigym.evals.scaling.run import vote
from verigym.evals.scaling.select import Candidate, choose, majority_tests, majority_vote, normal_patch, normal_test
from verigym.evals.verdict import Verdict


def patch(line, position=1):
    return f"--- a/x.py\n+++ b/x.py\n@@ -{position} +{position} @@\n context {position}\n-old\n+{line}\n"


def candidate(line, passed=(), tokens=None, position=1):
    return Candidate(patch=patch(line, position), num_tokens=tokens, passed=frozenset(passed))


def test_most_tests_passed_comes_first():
    assert choose([candidate("a", "x"), candidate("a", "x"), candidate("b", "xy")]) == 2


def test_a_tie_goes_to_the_majority_then_to_fewest_tokens_then_to_the_first():
    assert choose([candidate("a", "x", 1), candidate("b", "x", 9), candidate("b", "x", 8, position=5)]) == 2
    assert choose([candidate("a", "x", 5), candidate("b", "x", 4)]) == 1
    assert choose([candidate("a", "x", None), candidate("b", "x", 9)]) == 1
    assert choose([candidate("a"), candidate("b")]) == 0


def test_an_empty_patch_is_chosen_only_among_empty_ones():
    empty = Candidate(patch="", passed=frozenset("xyz"))
    assert choose([empty, candidate("a", "x")]) == 1
    assert choose([empty, empty]) == 0
    with pytest.raises(ValueError, match="no candidate"):
        choose([])


def test_patches_that_differ_in_place_and_spaces_are_one_form():
    assert normal_patch(patch("a")) == normal_patch(patch("a  ", position=7))
    assert normal_patch(patch("a")) != normal_patch(patch("b"))


TEST = "import x\n\n\ndef test_one():\n    assert x.f(1) == 2\n"


def test_tests_of_one_program_are_one_form():
    assert normal_test(TEST) == normal_test(
        TEST.replace("test_one", "test_uno").replace("    assert", "    # why\n    assert")
    )
    assert normal_test(TEST) != normal_test(TEST.replace("2", "3"))
    assert normal_test("def broken(:") is None
    assert normal_test("x = 1\n") is None


def test_majority_tests_are_the_most_frequent_that_show_the_issue():
    other = TEST.replace("2", "3")
    rare = TEST.replace("2", "4")
    tests = [rare, other, TEST, other, TEST, other, "nonsense("]
    asked = []

    def keep(test):
        asked.append(test)
        return test != other

    assert majority_tests(tests, keep) == [TEST, rare]
    assert majority_tests(tests, lambda test: True, top=1) == [other]
    assert "nonsense(" not in asked


def test_majority_vote_counts_equal_answers_once():
    def same(one, other):
        return one.strip("0.") == other.strip("0.")

    assert majority_vote(["7", "5", None, "5.0", "7", "5"], same) == 1
    assert majority_vote(["1", "2"], same) == 0
    assert majority_vote([None, None], same) is None
    assert majority_vote([], same) is None


def test_votes_over_responses_use_what_they_state():
    responses = {0: "\\boxed{7}", 1: "\\boxed{\\frac12}", 2: "The answer is 0.5.", 3: "I give up"}
    assert vote({"a": responses, "b": {0: "none", 1: "none either"}}) == {"a": 1, "b": 0}


def test_the_report_of_hand_worked_choices():
    def verdict(task_id, index, passed):
        return Verdict(task_id=task_id, index=index, passed=passed, score=None, ending="answered")

    verdicts = [verdict("a", 0, False), verdict("a", 1, True), verdict("b", 0, False), verdict("b", 1, False)]
    verdicts += [verdict("c", 0, True), verdict("c", 1, None)]
    report = scaling_report(verdicts, {"a": 1, "b": 0, "c": 1})
    assert (report["k"], report["n"], report["oracle"]) == (2, 3, pytest.approx(2 / 3))
    assert report["random"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert report["selected"] == pytest.approx(1 / 3)  # c's choice could not be graded
    assert told_scaling(report).startswith("best of 2: selected 0.333")
    assert told_scaling(scaling_report([], {})) == "no task had a sample to choose"
