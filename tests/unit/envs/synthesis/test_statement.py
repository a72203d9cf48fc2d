"""Issue texts: what they tell, and what they must not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.envs.synthesis.secrecy import changed_lines, leak, secret_words
from verigym.envs.synthesis.statement import Example, outcome, problem_statement

PATCH = """\
diff --git a/src/pack/core.py b/src/pack/core.py
--- a/src/pack/core.py
+++ b/src/pack/core.py
@@ -8,3 +8,3 @@ def price(count, rate):
 x
-    return count + rate
+    return count * rate
 y
"""
TESTS = '''\
from pack import price


class TestPrice:
    def test_of_many(self):
        """Docstring."""
        count = 4

        # why
        for rate in (2, 3):
            assert price(count, rate) == 4 * rate
'''


PLAIN = ("def test_of_none():\n    assert price() == limit()\n", 1)
"""A test without an input."""


def example(message: str = "assert 6 == (4 * 2)\n +  where 6 = price(4, 2)", line: int = 11) -> Example:
    return Example(function=(TESTS, 5), lines=(line,), message=message)


def tell(*examples: Example, patch: str = PATCH, **kwargs) -> str | None:
    return problem_statement("pack", examples, num_failing=len(examples), patch=patch, **kwargs)


@pytest.mark.parametrize(
    ("message", "side", "expected"),
    [
        ("assert 3 == 4\n +  where 3 = f(2)", "right", "the result was `3`, but `4` was expected."),
        ("AssertionError: assert 3 == 4", "left", "the result was `4`, but `3` was expected."),
        ("AssertionError: Lists differ: [1] != [2]\n\nFirst", None,
         "two values that should be equal are `[1]` and `[2]`."),
        ("assert 'a == b' == 'c'", None, "this should be true, but is not: `'a == b' == 'c'`."),
        ("assert not True\n +  where True = f(2)", None,
         "this should be true, but is not: `not True`, where `True = f(2)`."),
        ("AssertionError: Items in the first set:\n3", None, "a check says: `Items in the first set: 3`."),
        ("AssertionError: KeyError not raised", None, "`KeyError` was expected, but there was no exception."),
        ("Failed: DID NOT RAISE <class 'ValueError'>", None, "`ValueError` was expected, but there was no exception."),
        ("TypeError: f() at 0x7f00 in /workspace/src/pack/core.py:12", None,
         "there was an unexpected exception: `TypeError: f() in <file>`."),
    ],
)  # fmt: skip
def test_outcomes(message, side, expected):
    assert outcome(message, side) == expected


def test_the_code_and_the_values_are_told():
    text = tell(example())
    assert text is not None
    assert "count = 4\nfor rate in (2, 3):\n    assert price(count, rate) == 4 * rate\n" in text
    assert "Docstring" not in text
    assert "# why" not in text


def test_a_function_inside_the_test_is_not_taken_for_the_test():
    source = "def test_a():\n    def inner():\n        return price(1, 2)\n    assert inner() == 2\n"
    text = tell(Example(function=(source, 1), lines=(4, 3), message="TypeError: no"))
    assert text is not None
    assert "    return price(1, 2)\nassert inner() == 2\n" in text


def test_code_that_holds_a_changed_line_is_left_out():
    patch = PATCH.replace("return count * rate", "for rate in (2, 3):")
    other = Example(function=("def test_b():\n    assert price(5, 6) == 30\n", 1), lines=(2,), message="TypeError: no")
    third = Example(function=PLAIN, lines=(2,), message="assert 6 == 8")
    text = tell(example(), third, other, patch=patch)
    assert text is not None
    assert "for rate" not in text
    assert "assert price(5, 6) == 30\n```\n" in text


def test_no_statement_where_nothing_that_shows_an_input_may_be_told():
    patch = PATCH.replace("return count * rate", "for rate in (2, 3):")
    third = Example(function=PLAIN, lines=(2,), message="assert 6 == 8")
    assert tell(example(), patch=patch) is None
    assert tell(third, example(), patch=patch) is None
    assert tell(third, patch=patch) is not None
    numbers = ",\n".join(map(str, range(14)))  # more lines than are shown
    long = f"def test_long():\n    assert price() == [{numbers}]\n"
    assert tell(Example(function=(long, 1), lines=(2,), message="assert 6 == 8")) is None


def test_an_example_that_shows_an_input_comes_first():
    third = Example(function=PLAIN, lines=(2,), message="assert 6 == 8")
    text = tell(third, example())
    assert text is not None
    assert text.index("price(count, rate)") < text.index("price() == limit()")


def test_secrets_are_left_out():
    text = tell(Example(function=PLAIN, lines=(2,), message="assert 6 == 8"), secrets=["price"])
    assert text is not None
    assert "price" not in text
    assert "`6`" in text


def test_the_plainest_words_hold_no_statement_of_python():
    text = tell(Example(function=PLAIN, lines=(2,), message="assert x"), secrets=["x", "price"])
    assert text is not None
    for word in ("return", "pass", "raise", "break", "continue", "else", "yield"):
        assert leak(text, f"-    {word}\n+    y = 1\n") is None


def test_no_statement_where_even_that_gives_away():
    assert tell(example(), secrets=["Find the cause"]) is None


def test_secret_words():
    locations = {"tests/test_a.py::T::test_x[1]": ("tests/test_a.py", 3)}
    words = secret_words("src/pack/core.py", list(locations), locations)
    assert words == ["pack.core", "test_x", "test_a"]
    assert secret_words("src/pack/__init__.py", [], {}) == []


text_lines = st.text(alphabet="ab =()+:'\"\\`{}[]0", min_size=1, max_size=20).filter(str.strip)


@given(
    removed=text_lines,
    added=text_lines,
    message=st.one_of(text_lines, st.tuples(text_lines, text_lines).map("assert {0[0]} == {0[1]}".format)),
    extra=st.sampled_from(["", " in src/pack/core.py:8", " at line 8", " core.py", "\nreturn count + rate"]),
    line=st.integers(1, 12),
)
def test_no_statement_gives_the_place_away(removed, added, message, extra, line):
    patch = PATCH + f"-    {removed}\n+    {added}\n"
    text = tell(example(message + extra, line), patch=patch)
    if text is None:
        return
    assert "core.py" not in text
    assert "line 8" not in text
    assert leak(text, patch) is None
    for changed in changed_lines(patch):
        assert f"\n{changed}\n" not in text
        assert f" {changed} " not in text


GIVEN = """\
import pytest
from pack import price

RATES = {"low": 2}


class TestPrice:
    cases = [(1, 2), (3, 4)]

    def setUp(self):
        self.count = 4
        self.start = price(1, 1)

    @pytest.mark.parametrize("count", [4, 5])
    def test_of_many(self, count):
        rate = RATES["low"]
        assert price(count, rate) == 8

    def test_of_cases(self):
        for count, rate in self.cases:
            with self.subTest(count=count):
                self.assertEqual(price(count, rate), self.count)
"""


def given(first: int, line: int, inputs: dict[str, str]) -> str:
    text = tell(Example(function=(GIVEN, first), lines=(line,), message="assert 6 == 8", inputs=inputs))
    assert text is not None
    return text


def test_the_input_of_a_parametrized_test_is_told():
    text = given(14, 17, {"count": "5", "RATES": "{'low': 2}", "rate": "2", "expected": "1"})
    assert "\n```\n\nwith `RATES = {'low': 2}`, `count = 5`, the result was `6`" in text


def test_the_input_of_a_loop_over_attributes_is_told():
    text = given(19, 22, {"count": "3", "rate": "4", "self.cases": "[(1, 2), (3, 4)]", "self.count": "4"})
    assert "with `count = 3`, `rate = 4`, `self.cases = [(1, 2), (3, 4)]`, `self.count = 4`, two values" in text
    assert "with `count = 3`, two" in given(19, 22, {"count": "3", "rate": f"'{'x' * 700}'"})


def test_what_set_up_runs_is_shown_where_that_fails():
    assert "```python\nself.count = 4\nself.start = price(1, 1)\n```" in given(19, 12, {})


def test_an_input_that_gives_the_place_away_is_left_out():
    text = given(14, 17, {"count": "'core.py'"})
    assert "assert price(count, rate) == 8" in text
    assert "core" not in text
