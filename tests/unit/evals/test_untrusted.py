"""Patches whose tests all pass while nothing speaks for some that decide: there is a rule, and they are counted."""

import asyncio

import pytest

from verigym.__main__ import main
from verigym.envs.datasets.swe_examples import example_tasks
from verigym.envs.swe import grading
from verigym.errors import GradingError
from verigym.evals.metrics import family_summary
from verigym.evals.report import build_report, report_table
from verigym.evals.suites.registry import suite_named
from verigym.evals.suites.spec import GradeOptions, Prediction
from verigym.evals.verdict import Verdict
from verigym.rewards.score import Score
from verigym.rewards.swe import TestReport

DETAIL = "not trusted: all tests passed, and no twin could be made of a"


def verdict(name, detail, ending="answered", passed=False):
    return Verdict(task_id=name, index=0, passed=passed, score=passed and float(passed), ending=ending, detail=detail)


def test_they_are_counted_whatever_they_were_worth():
    verdicts = [
        verdict("a", DETAIL),
        verdict("b", DETAIL, passed=True),
        verdict("c", f"{DETAIL}; such gradings are dropped", "grader_failure", None),
        verdict("d", "all tests passed", passed=True),
    ]
    summary = family_summary(verdicts)
    assert (summary["num_untrusted"], summary["num_infrastructure_failures"], summary["n"]) == (3, 1, 3)
    table = report_table(build_report("swe", "p.jsonl", verdicts, seconds=1.0, kind="predictions"))
    assert "not trusted" in list(table.columns[0].cells)


@pytest.mark.parametrize("suite", ["swe", "tasks"])
@pytest.mark.parametrize("rule", ["fail", "accept", "drop"])
def test_the_rule_reaches_the_grader(monkeypatch, suite, rule):
    asked = []

    async def grade_patch(backend, task, patch, *, timeout_s, untrusted):
        asked.append(untrusted)
        if untrusted == "drop":
            raise GradingError(DETAIL)
        score = Score(value=0.0, passed=False, detail=DETAIL)
        return score, TestReport(statuses={}, complete=True, exit_code=0)

    monkeypatch.setattr(grading, "grade_patch", grade_patch)
    made = suite_named(suite).make_grader
    assert made is not None
    grader = made(GradeOptions(untrusted=rule, sandbox="unsafe"))
    prediction = Prediction(where="p", task_id="a", given_id="a", text="x")
    try:
        asyncio.run(grader.grade(example_tasks()[0], prediction))
    except GradingError:
        assert rule == "drop"
    assert asked == [rule]


@pytest.mark.parametrize(
    "command",
    [
        ["grade", "math500", "--data", "d.jsonl", "--predictions", "p.jsonl", "--untrusted", "drop"],
        ["eval", "verigym/Math-v0", "--policy", "gold", "--untrusted", "drop"],
    ],
)
def test_where_there_are_no_patches_it_is_refused(command, capsys):
    assert main(command) != 0
    assert "--untrusted is of patches" in capsys.readouterr().err
