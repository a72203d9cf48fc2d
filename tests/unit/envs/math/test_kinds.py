"""Kinds of mistakes of a grader of mathematics: each with answers of both sides, and properties of all answers."""

import runpy
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest
import sympy
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from verigym.envs.math.env import MathEnv
from verigym.envs.math.equivalence import EquivalenceChecker
from verigym.envs.task import Task
from verigym.rewards.math.answers import extract_answer
from verigym.rewards.math.grade import grade_math

KINDS = runpy.run_path(str(Path(__file__).with_name("answer_kinds.py")))
SAME, DIFFERENT = KINDS["SAME"], KINDS["DIFFERENT"]
RELAXED = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture(scope="module")
def checker():
    checker = EquivalenceChecker(num_workers=2, cpu_seconds=4.0)
    yield checker
    checker.close()


def passed(checker, answer, gold, problem=None):
    return grade_math(f"\\boxed{{{answer}}}", gold, verify=checker, problem=problem)


def wrong_of(checker, pairs, expected, problem=None):
    with ThreadPoolExecutor(2) as threads:
        scores = list(threads.map(lambda pair: passed(checker, *pair, problem), pairs))
    return [(pair, score.detail) for pair, score in zip(pairs, scores, strict=True) if score.passed is not expected]


@pytest.mark.parametrize("kind", SAME)
def test_one_answer_in_two_forms(checker, kind):
    assert wrong_of(checker, SAME[kind], True) == []


@pytest.mark.parametrize("kind", DIFFERENT)
def test_two_answers_are_not_one(checker, kind):
    assert wrong_of(checker, DIFFERENT[kind], False) == []


def test_an_expression_left_to_be_worked_out_is_no_answer_where_a_number_is_asked(checker):
    assert wrong_of(checker, KINDS["OPEN"], True) == []  # equal they are
    assert wrong_of(checker, KINDS["OPEN"], False, problem="") == []
    assert wrong_of(checker, KINDS["WORKED_OUT"], True, problem="") == []


def test_the_question_is_no_answer_and_a_form_that_it_asks_is_asked(checker):
    wrong = [case for case in KINDS["ASKED"] if passed(checker, *case[:3]).passed is not case[3]]
    assert wrong == []


def test_training_pays_no_echo(checker):
    task = Task(id="t", family="math", prompt="What is $17 + 25$?", hidden={"answer": "42"})
    rewards = {}
    for worked_out in (True, False):
        for answer in ("17 + 25", "42", "42.0"):
            env = MathEnv(verify=checker, worked_out=worked_out)
            env.reset(options={"task": task})
            rewards[worked_out, answer] = env.step(f"\\boxed{{{answer}}}")[1]
    assert rewards.pop((True, "17 + 25")) == 0.0
    assert set(rewards.values()) == {1.0}


@pytest.mark.parametrize(("text", "answer"), KINDS["STATED"])
def test_an_expression_in_prose_is_taken_whole(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize("text", KINDS["BROKEN_OFF"])
def test_a_text_that_broke_off_states_no_answer(text):
    assert extract_answer(text) is None


def test_one_that_did_not_states_one():
    for text in (
        f"{text}." for text in ("so we get 5", "The answer is $k = 5$", "It is (5)", "\\[ x = 5 \\]\nSo x is 5")
    ):
        assert "5" in (extract_answer(text) or "")


@RELAXED
@given(
    number=st.fractions(min_value=-1000, max_value=1000, max_denominator=400).filter(bool),
    size=st.integers(-60, 60),
    share=st.integers(3, 9),
)
def test_a_number_changed_by_a_small_share_is_another(checker, number, size, share):
    exact = number * Fraction(10) ** size
    other = exact * (1 + Fraction(1, 10**share))
    for form in (written, decimal):
        assert passed(checker, form(exact), form(exact)).passed
        assert not passed(checker, form(other), form(exact)).passed
        assert not passed(checker, f"(1, {form(other)})", f"(1, {form(exact)})").passed
        assert not passed(checker, f"[{form(other)}, \\infty)", f"[{form(exact)}, \\infty)").passed


def written(value):
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def decimal(value):
    digits = f"{sympy.N(sympy.Rational(value.numerator, value.denominator), 14):.12e}"
    mantissa, _, exponent = digits.partition("e")
    return f"{mantissa} \\times 10^{{{int(exponent)}}}"


GOLDS = ["5", r"\frac{1}{2}", r"3\sqrt{2}", "x^2+1", "(1, 2)", r"\{1, 2\}", "[0, 1)", "x = 3", r"\pi"]
REMAINDERS = [
    r"\foo",
    r" + \ldots",
    ")",
    r"\sqrt",
    "^",
    "_",
    r" \text{ is not it}",
    r" \text{ or } 7",
    " < 8",
    r" \ne 9",
    r"\frac{1}",
    " ??",
    " or 7",
    "&",
    r"\\ 7",
    " , 7",
]


@RELAXED
@given(
    gold=st.sampled_from(GOLDS),
    remainder=st.sampled_from(REMAINDERS),
)
def test_an_answer_with_a_remainder_that_is_not_read_is_another(checker, gold, remainder):
    assert passed(checker, gold, gold).passed
    assert not passed(checker, gold + remainder, gold).passed


X, Y = sympy.symbols("x y")
LEAVES = st.sampled_from([X, Y, sympy.pi, sympy.E]) | st.integers(-9, 9).map(sympy.Integer)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.tuples(inner, inner).map(lambda two: two[0] + two[1])
        | st.tuples(inner, inner).map(lambda two: two[0] * two[1])
        | st.tuples(inner, st.integers(2, 4)).map(lambda two: two[0] ** two[1])
        | st.tuples(inner, inner).filter(lambda two: two[1] != 0).map(lambda two: two[0] / two[1])
        | st.tuples(st.sampled_from([sympy.sqrt, sympy.sin, sympy.cos, sympy.exp, sympy.Abs]), inner).map(
            lambda two: two[0](two[1])
        )
    ),
    max_leaves=5,
)


@RELAXED
@given(expression=EXPRESSIONS)
def test_an_expression_as_latex_is_the_one_that_python_prints(checker, expression):
    assume(expression.is_finite is not False)
    assume(not expression.has(sympy.zoo, sympy.nan, sympy.I, sympy.re))  # |e^x| is e^re(x): no function of answers
    latex = sympy.latex(expression)
    assert passed(checker, str(expression), latex).passed, (str(expression), latex)
    assert not passed(checker, f"{expression} + 1", latex).passed


MEBIBYTE = 1 << 20
FLOODS = {
    "commas in a box": "\\boxed{A" + ", " * (MEBIBYTE // 2) + "!}",
    "commas that fit": "\\boxed{A" + ", " * 950 + "!}",
    "backticks": "`" * MEBIBYTE,
    "blanks between boxes": "\\boxed{1}" + " " * MEBIBYTE + "\\boxed{2}",
    "lines between boxes": "\\boxed{1}" + "\n" * MEBIBYTE + "\\boxed{2}",
    "final answers that open": "\\boxed{6} " + "final answer is \\(" * (MEBIBYTE // 18),
    "final answers without a box": "final answer is \\(" * (MEBIBYTE // 18),
    "boxes in boxes": "\\boxed{" * 200 + "6" + "}" * 200,
    "dollars": "$a " * (MEBIBYTE // 3),
    "negatives": "-1 " * (MEBIBYTE // 3),
    "brackets": "(1," * (MEBIBYTE // 3),
    "words in a box": "\\boxed{6" + " \\text{a}" * 190 + "}",
    "braces in a box": "\\boxed{" + "{" * 900 + "6" + "}" * 900 + "}",
    "backslashes": "\\boxed{" + "\\" * 1_980 + "}",
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_read_in_the_time_that_it_takes_to_pass_over_it(name):
    # A pattern that backtracks would take minutes to years, and the run's limit would end it.
    for gold in ("5", "\\text{(C)}", "\\{1, 2\\}", "x = 1, y = 2"):
        for lenient in (True, False):
            assert not grade_math(FLOODS[name], gold, verify=lambda a, g: False, lenient=lenient).passed
