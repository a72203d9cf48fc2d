import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.rewards.math.answers import extract_answer
from verigym.rewards.math.grade import grade_math
from verigym.rewards.math.rules import decide
from verigym.rewards.math.text import to_latex

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def never(answer: str, gold: str) -> bool:
    raise AssertionError(f"the symbolic comparison was asked for {answer!r} and {gold!r}")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{42}.", "42"),
        ("\\boxed{1} no, it is \\boxed{2}", "2"),
        ("\\boxed{\\frac{1}{\\sqrt{2}}} done", "\\frac{1}{\\sqrt{2}}"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{1}, \\boxed{2} and \\boxed{3}", "1, 2, 3"),
        ("$\\boxed{(1,2)}$ \\text{ and } $\\boxed{(3,4)}$", "(1,2), (3,4)"),
        ("\\boxed{1} and then \\boxed{", "1"),
        ("\\boxed 7 is it", "7"),
        ("<think>\\boxed{1}</think> \\boxed{2}", "2"),
        ("\\boxed{1}</think> I don't know", None),
        ("<think> it is \\boxed{1}", None),
        ("The answer is 9.", "9"),
        ("The answer is $\\frac{1}{2}$.", "$\\frac{1}{2}$"),
        ("The final answer is: $\\frac{1}{2}$. I hope it is correct.", "$\\frac{1}{2}$"),
        ("The answer is 5. Let me check: 5 + 3 = 8.", "5"),
        ("The answer is 5, not 6.", "5"),
        ("The answer is 5 or 6", "5 or 6"),
        ("The answer is $5 or $6.", "$5 or $6"),
        ("The answer is Evelyn.", "Evelyn"),
        ("Final answer: (C) 25", "C"),
        ("**Final Answer**\n\n$\\frac{1}{2}$", "$\\frac{1}{2}$"),
        ("**Answer:** \\(5\\)", "\\(5\\)"),
        ("one costs $5 and one $6, so $11 in total", "11"),
        ("The midpoint of it is **(-1, 6)**.", "(-1, 6)"),
        ("So we get that \\[x = \\frac{3}{4}\\]", "x = \\frac{3}{4}"),
        ("\\boxed{5} or \\boxed{6}", "5 or 6"),
        ("\\boxed{5}; now put it in \\boxed{}", "5"),
        ("\\boxed{}", None),
        ("\\boxed{\\boxed{5}}", "5"),
        ("\\boxed{5", "5"),
        ("work 3\n#### 1,234", "1,234"),
        ("A: 23", "23"),
        ("first $x$, then 34", "34"),
        ("it is not 10, it is 1,000.99€", "1,000.99"),
        ("\\frac{10}{9}", "\\frac{10}{9}"),
        ("", None),
        ("nothing is here", None),
        ("the ratio is 1/2. Done.", "1/2"),
        ("Thus the final answer is 1/2, i.e. 0.5.", "0.5"),
        ("The ratio is 10:3.", "10:3"),
        ("It is 10%.", "10%"),
        ("Soucis : 2,74 $ a..", "2,74"),
        ("The correct option is **B**.", "B"),
        ("Option B is correct, and A is not.", "B"),
        ("The correct answer is option (B): 12", "B"),
        ("(B)", "B"),
        ("Yes.", "Yes"),
        ("The answer is June 20.", "June 20"),
        ("Our answer is correct. The greater one is indeed 18.", "18"),
        ("There are 7 of them, depending on $n$.", "7"),
        ("\\boxed{1} papers and \\boxed{2} bins", "1, 2"),
        ("\\boxed{1}\\boxed{2}", "1, 2"),
        ("\\boxed{1}\\boxed{1}", "1"),
        ("\\boxed{255} more. Final Answer: The final answer is $10,455$. I hope it is correct.", "10,455"),
        ("\\boxed{7}. The final answer is 2.45e6. I hope it is correct.", "2.45e6"),
        ("\\boxed{5}. The final answer is as above.", "5"),
    ],
)
def test_the_answer_of_a_response(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("rest", "answer"),
    [
        (" is wrong, it is 6.", "6"),
        ("$ is wrong, it is 6.", "6"),
        (" is incorrect", None),
        (" is not the answer.", None),
        (" isn't right.", None),
        (", which is not correct.", None),
        (" cannot be right; it is 7", "7"),
        ("? No, 6.", "6"),
        (". No wait, that is wrong; the answer is 6.", "6"),
        (" \u2014 actually it is 6", "6"),
        (". Oops, it should be $6$.", "6"),
        (". Sorry, the correct answer is 6.", "6"),
        (". This is wrong.", None),
        ("\\] That's incorrect.", None),
        # of other things, or no denial
        (" is the answer. It is wrong to say 6.", "5"),
        (" is correct.", "5"),
        (", which is not an integer.", "5"),
        (" (6 is wrong)", "5"),
        (". No other value works.", "5"),
        (". Wait, let me check: 2 + 3 is 5, so that is right.", "5"),
        (". Actually, this is the only solution.", "5"),
        (". But 6 is not.", "5"),
        (". If this is wrong, tell me.", "5"),
        (". However, note that 0 is no solution.", "5"),
        (". So the first claim was false.", "5"),
    ],
)
def test_words_right_behind_the_last_box_take_it_back(rest, answer):
    assert extract_answer(f"It is $\\boxed{{5}}{rest}") == answer
    strict = extract_answer(f"It is $\\boxed{{5}}{rest}", lenient=False)
    assert strict == ("5" if answer == "5" else None)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is not \\boxed{5}.", None),
        ("It can't be $\\boxed{5}$.", None),
        ("The wrong answer is \\boxed{5}; mine is 6.", "6"),
        ("It is \\boxed{6}, not \\boxed{5}.", "6"),
        ("\\boxed{5} is what you'd expect, but the answer is 6.", "6"),
        ("\\boxed{5}\\\\ But that's false.", None),
        ("\\boxed{5}. The correct answer is 6.", "6"),
        # of other things
        ("It is no more than \\boxed{5}.", "5"),
        ("It is not 6. The answer is \\boxed{5}.", "5"),
        ("It is not hard to see that it is \\boxed{5}", "5"),
    ],
)
def test_words_right_before_the_last_box_deny_it(text, answer):
    assert extract_answer(text) == answer


def test_only_a_box_counts_when_told_so():
    assert extract_answer("The answer is 9.", lenient=False) is None
    assert extract_answer("\\boxed{9}", lenient=False) == "9"


@pytest.mark.parametrize(
    ("answer", "gold", "same", "rule"),
    [
        ("42", "42", True, "text"),
        ("073", "73", True, "number"),
        ("1,234", "1234", True, "number"),
        ("42", "43", False, "number"),
        ("3\\frac{1}{2}", "3.5", True, "number"),
        ("75\\%", "\\frac34", True, "number"),
        ("(C) 25", "\\text{C}", True, "choice"),
        ("6:00 p.m.", "\\text{6:00 PM}", True, "clock"),
        ("2516_7", "2516_8", False, "base"),
        ("angela", "\\text{Evelyn}", False, "words"),
        ("5 or 6", "5", False, "alternatives"),
        ("x = 1, y = 2", "(2, 1)", False, "assignments"),
        ("x \\le 2", "(-\\infty, 2)", False, "interval"),
        ("(1, 3)", "(1, 2)", False, "tuple"),
        ("2 and 1", "\\{1, 2\\}", True, "list"),
        ("12 \\text{ cm}", "12", True, "units, text"),
        ("5 km", "5 \\text{ m}", False, "units, text"),
    ],
)
def test_a_verdict_names_the_rule_that_decided(answer, gold, same, rule):
    decision = decide(answer, gold, never)
    assert (decision.same, decision.rule) == (same, rule)


def test_numbers_that_could_be_rounded_are_left_to_the_symbolic_comparison():
    asked = []
    for answer, gold in [("0.33", "\\frac{1}{3}"), ("1/0", "1"), ("x+1", "1+x")]:
        assert decide(answer, gold, lambda a, g: bool(asked.append((a, g)))).rule == "symbolic"
    assert len(asked) == 3


def test_simple_answers_never_pay_for_the_symbolic_comparison():
    assert grade_math("\\boxed{ 42 }", "42", verify=never).value == 1.0
    assert grade_math("\\boxed{41}", "42", verify=never).value == 0.0
    assert grade_math("no idea", "42", verify=never).value == 0.0


def test_the_symbolic_comparison_decides_the_rest():
    asked = []
    score = grade_math("\\boxed{√2}", "$\\boxed{\\sqrt2}$", verify=lambda a, g: bool(asked.append((a, g))) or True)
    assert (score.passed, asked) == (True, [("\\sqrt{2}", "\\sqrt2")])


def test_unicode_signs_become_latex():
    assert to_latex("3√13 − π×√(x+1)") == "3\\sqrt{13} - \\pi \\times \\sqrt{x+1}"


@settings(max_examples=200)
@given(st.text(alphabet=st.sampled_from("\\boxed{}$ 1,./-()[]\n<think>answer is#A:")) | st.text())
def test_any_response_is_graded(text):
    score = grade_math(text, "17", verify=lambda answer, gold: False)
    assert score.value in (0.0, 1.0)


@pytest.mark.parametrize("hard", ["\\[" * 50_000, "\\boxed{" * 50_000, "$" * 99_999, "1," * 50_000, "\\text{" * 50_000])
def test_long_responses_are_read_in_time(hard):
    # A regression would take minutes, and the whole run's limit would end it.
    assert extract_answer(hard) != "17"


@pytest.mark.skipif(not DATA.exists(), reason="the benchmark data lies beside the checkout only where it was put")
def test_verdicts_on_real_answers_agree_with_their_labels():
    """GSM8K needs no symbolic comparison except for a few, which count as unequal here."""
    rows = [json.loads(line) for line in (DATA / "predictions" / "gsm8k.jsonl").read_text().splitlines()]
    wrong = [
        row
        for row in rows
        if grade_math(row["prediction"], row["gold"], verify=lambda a, g: False).passed != row["label"]
    ]
    assert len(rows) > 1000
    assert len(wrong) <= 0.01 * len(rows)
