"""The logic of view and edit."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.envs.tools.bounds import MAX_ANSWER_CHARS, bounded
from verigym.envs.tools.files import MAX_FILE_BYTES, MAX_LINES, decode, replace_lines, view_lines
from verigym.envs.tools.spec import ToolError

TEXT = "def f(x):\n    return x\n\n\ndef g(x):\n    return x\n"


def test_view_numbers_lines_and_keeps_to_the_window():
    assert view_lines(TEXT, "a.py") == "1: def f(x):\n2:     return x\n3: \n4: \n5: def g(x):\n6:     return x"
    assert view_lines(TEXT, "a.py", 5, 5) == "5: def g(x):"
    assert view_lines(TEXT, "a.py", 6, 99) == "6:     return x"
    assert view_lines("", "a.py") == "[a.py is empty]"


def test_view_says_what_it_leaves_out():
    text = "x\n" * (MAX_LINES + 5)
    assert view_lines(text, "a.py").endswith(f"\n[lines {MAX_LINES + 1} to {MAX_LINES + 5} not shown]")


@pytest.mark.parametrize(("start", "end"), [(0, 0), (7, 0), (4, 2), (-1, 3)])
def test_a_window_outside_the_file_is_an_error(start, end):
    with pytest.raises(ToolError, match=r"a\.py has lines 1 to 6"):
        view_lines(TEXT, "a.py", start, end)


def test_edit_replaces_whole_lines():
    assert (
        replace_lines(TEXT, "def g(x):\n    return x", "def g(x):\n    return -x", "a.py") == TEXT[:-9] + "return -x\n"
    )
    assert replace_lines("a\nb\nc", "c", "d\ne", "a.py") == "a\nb\nd\ne"
    assert replace_lines("a\r\nb\r\n", "b", "c\nd", "a.py") == "a\r\nc\r\nd\r\n"
    assert replace_lines("a\nb\nc\n", "b\n", "", "a.py") == "a\nc\n"
    assert replace_lines("a\n\x0cb\nc\n", "c", "d", "a.py") == "a\n\x0cb\nd\n"


@pytest.mark.parametrize(
    ("search", "replace", "message"),
    [
        ("    return x", "    return 1", r"matches 2 places in a\.py \(lines 2, 6\)"),
        ("return x", "return 1", r"apart from blanks at the ends of lines it is:\n2:     return x"),
        ("def f(y):\n    return y", "", r"the nearest lines are:\n1: def f\(x\):\n2:     return x"),
        ("return", "1", r"search does not match whole lines of a\.py"),
        ("zzzz", "1", r"search does not match whole lines of a\.py$"),
        ("", "1", "search is empty"),
        ("\n", "1", "search is empty"),
        ("def f(x):", "def f(x):\n", "nothing would change"),
    ],
)
def test_an_edit_that_fails_says_why(search, replace, message):
    with pytest.raises(ToolError, match=message):
        replace_lines(TEXT, search, replace, "a.py")


LINES = st.lists(st.text("abcd ", min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=8, unique=True)


@given(LINES, st.lists(st.text("xyz", min_size=1, max_size=3), max_size=3), st.data(), st.booleans())
def test_an_edit_changes_its_lines_and_no_other(lines, new, data, ends):
    start = data.draw(st.integers(0, len(lines) - 1))
    end = data.draw(st.integers(start + 1, len(lines)))
    text = "\n".join(lines) + ("\n" if ends else "")
    edited = replace_lines(text, "\n".join(lines[start:end]), "\n".join(new), "a.py")
    assert edited.splitlines() == lines[:start] + new + lines[end:]
    if new:
        assert edited.endswith("\n") == ends


def test_bytes_that_are_no_text_are_an_error():
    with pytest.raises(ToolError, match="not UTF-8"):
        decode(b"\xff", "a.bin")


SEPARATORS = ["\x0c", "\x0b", "\x1c", "\x85", "\u2028", "\u2029", "\r"]


@pytest.mark.parametrize("unseen", [*SEPARATORS, "\x00", "\xa0", "\u200b", "\u202e", "\ufeff", "\x1b"])
def test_lines_are_those_of_grep_and_unseen_characters_can_be_matched_as_they_are_shown(unseen):
    text = f"a\nb{unseen}c\nd\n"
    note = f"<U+{ord(unseen):04X}>"
    assert view_lines(text, "a.py") == f"1: a\n2: b{note}c\n3: d"
    assert replace_lines(text, f"b{note}c", f"b{note}e", "a.py") == f"a\nb{unseen}e\nd\n"
    assert replace_lines(text, f"b{unseen}c", "e", "a.py") == "a\ne\nd\n"


def test_a_note_that_stands_in_the_file_is_itself():
    assert replace_lines("x <U+000C> y\n\x0c\n", "x <U+000C> y", "z <U+000C>", "a") == "z <U+000C>\n\x0c\n"
    assert replace_lines("<U+0041>\n", "<U+0041>", "<U+0042>", "a") == "<U+0042>\n"


@pytest.mark.parametrize(
    ("text", "search", "replace", "edited"),
    [
        ("a\r\nb\nc\r\n", "b", "x", "a\r\nx\nc\r\n"),
        ("a\r\nb\nc\r\n", "a\nb\nc", "a\nx\nc", "a\r\nx\nc\r\n"),
        ("a\r\nb\nc\r\n", "a", "x\ny", "x\r\ny\r\nb\nc\r\n"),
        ("a\nb\r\n", "b", "x\ny", "a\nx\r\ny\r\n"),
        ("a\nb\r\n", "a\nb", "a\nnew\nb", "a\nnew\nb\r\n"),
        ("a\r\nb\r\nc\n", "b\r\n", "x\r\n", "a\r\nx\r\nc\n"),
        ("a\r\nb\r\n", "a\nb", "", ""),
        ("a\nb", "b", "", "a"),
        ("a\r\nb", "b", "c\nd", "a\r\nc\r\nd"),
        ("a\rb\nc\n", "a<U+000D>b", "x", "x\nc\n"),
        ("\ufeffa\nb\n", "a", "x", "\ufeffx\nb\n"),
        ("\ufeffa\nb\n", "\ufeffa", "x", "\ufeffx\nb\n"),
        ("\ufeffa", "a", "b", "\ufeffb"),
    ],
)
def test_line_ends_and_a_byte_order_mark_stay(text, search, replace, edited):
    assert replace_lines(text, search, replace, "a.py") == edited


def test_mixed_line_ends_are_shown_and_uniform_ones_are_not():
    assert view_lines("a\r\nb\r\n", "f") == "1: a\n2: b"
    assert view_lines("a\r\nb\nc\r", "f") == "1: a<U+000D>\n2: b\n3: c<U+000D>"
    assert view_lines("\ufeffa\n", "f") == "1: a"


ENDS = st.sampled_from(["\n", "\r\n"])


@given(
    st.lists(st.tuples(st.text("ab\x0c\u2028\r", max_size=4).map(lambda t: t.rstrip("\r")), ENDS), max_size=6),
    st.data(),
)
def test_an_edit_of_what_is_shown_leaves_every_other_byte(lines, data):
    text = "".join(line + end for line, end in lines)
    shown = [row.partition(": ")[2] for row in view_lines(text, "f").split("\n")] if text else []
    if not shown:
        return
    at = data.draw(st.integers(0, len(shown) - 1))
    if not shown[at].strip("\r") or len({line for line, _ in lines}) < len(lines):
        return
    want = "".join(("new" if n == at else line) + end for n, (line, end) in enumerate(lines))
    assert replace_lines(text, shown[at], "new", "f") == want


def test_answers_are_bounded_and_say_what_was_cut():
    one = view_lines("x" * 3_000_000 + "y\n", "f")
    assert len(one) < 2100
    assert "[... 2998001 characters left out ...]" in one
    assert one.endswith("y")
    many = view_lines("\n".join(f"{n}" + "x" * 1990 for n in range(100)), "f")
    assert len(many) < 31_000
    assert many.endswith("[lines 16 to 100 not shown]")
    for search in ("q" * 100_000, "x" * 100_000 + "z", "\n".join("x" * 500 for _ in range(500))):
        with pytest.raises(ToolError) as error:
            replace_lines("\n".join(["x" * 100_000, "x" * 400] * 20), search, "", "f")
        assert len(str(error.value)) < 60_000
    assert len(bounded("a" * 200_000)) < MAX_ANSWER_CHARS + 100
    assert "[... 134464 characters left out ...]" in bounded("a" * 200_000)
    assert bounded("short") == "short"


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("x" * 12_000 + "\n", "x" * 11_990 + "y"),
        ("ab" * 500_000, "ab" * 400_000),
        ("a\n" * 200_000, "a\n" * 80_000 + "b"),
        ("a\n" * 200_000, "a\n" * 80_000),
        ("".join(f"line {n}\n" for n in range(200_000)), "line x"),
        (" " * 2_000_000, "x y"),
    ],
)
def test_no_text_makes_an_edit_quadratic(text, search):
    """Counted in steps of the interpreter, not in seconds: comparing every pair of characters would take billions."""
    steps = 0

    def count(frame, event, _):
        nonlocal steps
        steps += 1
        assert steps < 3_000_000

    sys.setprofile(count)
    try:
        with pytest.raises(ToolError):
            replace_lines(text, search, "z", "f")
    finally:
        sys.setprofile(None)


def test_a_file_that_is_too_large_is_an_error():
    with pytest.raises(ToolError, match="larger than 4 MiB"):
        decode(b"a" * (MAX_FILE_BYTES + 1), "f")
