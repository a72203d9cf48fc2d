import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.rewards.code import compare_output, compare_value, score_tests
from verigym.rewards.extraction import extract_program


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nprint(1)\n```", "print(1)\n"),
        ("a\n```python\nprint(1)\n```\nb\n```python\nprint(2)\n```\nc", "print(2)\n"),
        ("```python\nprint(1)\n```\n```\n3\n```", "print(1)\n"),
        ("```\nprint(1)\n```", "print(1)\n"),
        ("```py\nx\n```", "x\n"),
        ("```bash\nls\n```", ""),
        ("```bash\nls\n```\n```python\nx\n```", "x\n"),
        ("print(1)", "print(1)"),
        ("```python\nprint(1)", "print(1)"),
        ("<think>```python\nno\n```</think>\n```python\nyes\n```", "yes\n"),
        ("", ""),
        ("```python print(1) ```", "print(1)"),
        ("Sure! ```python\nprint(1)```", "print(1)"),
        ("```Python title='a'\nprint(1)\n```", "print(1)\n"),
        ("~~~python\nprint(1)\n~~~", "print(1)\n"),
        ("````python\nx = '```'\n````", "x = '```'\n"),
        ("```python\r\nprint(1)\r\n```\r\n", "print(1)\n"),
        ("1. So:\n   ```python\n   print(1)\n   ```", "print(1)\n"),
        ("[PYTHON]\nprint(1)\n[/PYTHON]", "print(1)\n"),
        ("print(1)\n```", "print(1)\n"),
        ("```python\nprint(1)\n```<|im_end|>", "print(1)\n"),
        ("```pycon\n>>> 1\n```\n```python\nprint(1)\n```\n```text\n1\n```", "print(1)\n"),
        ("```java\nx\n```\n```\nprint(1)\n```", "print(1)\n"),
        ("<think>\n```python\nprint(1)\n```", ""),
        ("print('``` is a fence')", "print('``` is a fence')"),
        ("```python\ndef f():\n    return '```'\n```", "def f():\n    return '```'\n"),
    ],
)
def test_the_program_of_a_response(text, program):
    assert extract_program(text) == program


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1  2 \r\n3\n\n", "1 2\n3", True),
        ("1 2 3", "1 2\n3", False),
        ("0.3333333333", "0.3333333332", True),
        ("0.334", "0.333", False),
        ("1.0", "1", False),
        ("12345678901234567890", "12345678901234567891", False),
        ("YES", "yes", False),
        ("", "", True),
        ("", "0", False),
        ("nan", "nan", True),
    ],
)
def test_outputs_are_compared_by_token(printed, expected, same):
    assert compare_output(printed, expected) is same


class AlwaysEqual:
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


class EqualInt(int):
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        (1, 1, True),
        (True, 1, False),
        (1, True, False),
        (1, 1.0, True),
        (0.1 + 0.2, 0.3, True),
        (10**30, 10**30 + 1, False),
        (10**400, 1.0, False),
        ("1", 1, False),
        ([1, [2, None]], [1, [2, None]], True),
        ((1, 2), [1, 2], True),
        ([1], [1, 2], False),
        ({"a": 1}, {"a": 1}, True),
        ({"a": 1}, {"a": True}, False),
        ({1: 2}, {True: 2}, False),
        ({"a": 1}, {"b": 1}, False),
        (None, False, False),
        (float("nan"), float("nan"), False),
        (AlwaysEqual(), 1, False),
        (AlwaysEqual(), AlwaysEqual(), False),
        (EqualInt(3), 4, False),
        ([AlwaysEqual()], [1], False),
        ({1, 2}, {1, 2}, False),
    ],
)
def test_values_are_compared_by_type(value, expected, same):
    assert compare_value(value, expected) is same


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100)
@given(JSON, JSON)
def test_comparison_of_values_is_reflexive_symmetric_and_no_laxer_than_equality(left, right):
    assert compare_value(left, left)
    assert compare_value(left, right) == compare_value(right, left)
    if compare_value(left, right) and not isinstance(left, float | int):
        assert type(left) is type(right)


def test_all_tests_must_pass_and_none_is_no_success():
    assert score_tests([True, True]).value == 1.0
    half = score_tests([True, False])
    assert (half.value, half.passed, half.breakdown) == (0.0, False, {"passed": 0.0, "tests": 0.5})
    assert score_tests([]).value == 0.0
