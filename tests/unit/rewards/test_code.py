import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.rewards.code import compare_output, compare_value, score_tests
from verigym.rewards.extraction import answered_expression, complete_function, extract_program, side_of_assertion


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
        ("1.001", "1.002", False),
        ("1.000000005", "1.000000000", False),
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
        (1.001, 1.002, False),
        (1.000000005, 1.0, False),
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


HEAD = '''import math
from typing import List


def helper(x: int) -> int:
    return x + 1


def rounded(values: List[float]) -> int:
    """ Rounds up.
    """
'''
BEFORE = HEAD[: HEAD.index("def rounded")].rstrip()
WHOLE = "def rounded(values: List[float]) -> int:\n    return helper(math.floor(values[0]))"


@pytest.mark.parametrize(
    "fence", ["```python\n{}\n```", "Here:\n~~~py\n{}\n~~~", "<think>hm</think>\n```\n{}\n```", "```python\n{}"]
)
def test_a_program_in_a_fence_has_the_prompts_imports_and_helpers(fence):
    program = complete_function(fence.format(WHOLE), HEAD, "rounded")
    names: dict = {}
    exec(program, names)
    assert names["rounded"]([2.5]) == 3


def test_what_stands_before_a_function_changes_no_other_program():
    assert complete_function(WHOLE, HEAD, "rounded") == WHOLE  # bare: graded as it is
    alone = "```python\ndef f():\n    return 1\n```"
    assert complete_function(alone, "def f():\n", "f").strip() == "def f():\n    return 1"
    own = "```python\nfrom __future__ import annotations\ndef helper(x): return 7\n" + WHOLE + "\n```"
    program = complete_function(own, HEAD, "rounded")
    names: dict = {}
    exec(program, names)
    assert names["rounded"]([2.5]) == 7
    assert program.startswith("from __future__")
    assert complete_function("    return 2", HEAD, "rounded") == HEAD + "    return 2"


# text -> (answer, what of it is the output, what the input)
ANSWERS = {
    "[ANSWER]f(1)[/ANSWER]": ("f(1)", "f(1)"),
    "[ANSWER]\nassert f(1) == 2\nassert f(2) == 3\nassert f(3) == 4": ("2", "f(1)"),
    "so [ANSWER] assert f(1) == 2\nassert f(2) == 3": ("2", "f(1)"),
    "[ANSWER]assert f('a\\n') == [1,\n 2]\nassert f(2)": ("[1, 2]", "f('a\\n')"),
    "[ANSWER]\n\nassert f(1) == 2\nThis is because\nof it": ("2", "f(1)"),
    "[ANSWER]```python\nassert f(1) == 2\nassert f(2) == 3\n```": ("2", "f(1)"),
    "[ANSWER]f(1)\nf(2)\nf(3)": ("f(1)", "f(1)"),
    "[ANSWER]{'a': 1}\n[PYTHON]\ndef f(x):": ("{'a': 1}", "{'a': 1}"),
    "[ANSWER]assert f(1) == 2": ("2", "f(1)"),
    "[ANSWER]": ("", ""),
    "[ANSWER]5[/ANSWER] and the tag [ANSWER] is closed": ("5", "5"),
    "[ANSWER]5[/ANSWER] no, [ANSWER]6[/ANSWER]": ("6", "6"),
    "assert f(1) == 2\n[/ANSWER]\n\n[PYTHON]\ndef f(x)\n[ANSWER]\nassert f(7) == 8\n[/ANSWER]": ("2", "f(1)"),
    "3\n[/ANSWER]\n[ANSWER]4": ("3", "3"),
    "<think>[ANSWER]1[/ANSWER]</think>[ANSWER]2[/ANSWER]": ("2", "2"),
}


@pytest.mark.parametrize("text", ANSWERS)
def test_the_answer_of_a_response_to_cruxeval(text):
    found = answered_expression(text)
    assert (side_of_assertion(found, "output"), side_of_assertion(found, "input")) == ANSWERS[text]


MIB = 1 << 20


@pytest.mark.parametrize(
    "text",
    [
        "`" * MIB,
        "~" * MIB,
        "``" + "`x " * (MIB // 3),
        "```python " * (MIB // 10),
        "```a " * (MIB // 5),
        "```\n" * (MIB // 4),
        "```py\n" * (MIB // 6),
        "[PYTHON]" * (MIB // 8),
        "[ANSWER]" * (MIB // 8),
        "[ANSWER]" + "(" * MIB,
        "[ANSWER]" + "assert " * (MIB // 7),
        "assert f(" + "-" * MIB,
        "def " * (MIB // 4),
        "\n" * MIB,
        " " * MIB + "```",
        "\\ud83d" * 100_000,
    ],
    ids=lambda text: text[:12],
)
def test_a_mebibyte_of_anything_is_read_in_a_moment(text):
    for read in (
        lambda: extract_program(text, "f"),
        lambda: complete_function(text, HEAD, "rounded"),
        lambda: side_of_assertion(answered_expression(text), "input"),
    ):
        before = time.process_time()
        read()
        assert time.process_time() - before < 3.0  # a second, on a machine with nothing else to do
