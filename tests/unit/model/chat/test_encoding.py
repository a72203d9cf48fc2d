"""Text that UTF-8 cannot hold, as bytes and back."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.model.chat.encoding import from_bytes, has_halves, path_text, to_bytes, valid_text

any_text = st.text(st.characters(exclude_categories=())) | st.text(
    st.sampled_from(["a", "é", "\U0001f600", *map(chr, (0xD83D, 0xDE00, 0xDC80, 0xDCFF, 0xDFFF)), "\n", "\0"])
)

HIGH, LOW, BYTE, LAST, NO_BYTE = map(chr, (0xD83D, 0xDE00, 0xDC80, 0xDCFF, 0xDD00))
CASES = [  # text, bytes, valid text, text of a path
    ("", b"", "", ""),
    ("a b", b"a b", "a b", "a b"),
    ("é\U0001f600", "é\U0001f600".encode(), "é\U0001f600", "é\U0001f600"),
    (f"a{HIGH}b", b"a?b", "a?b", "a?b"),
    (HIGH + LOW, "\U0001f600".encode(), "\U0001f600", "\U0001f600"),
    (LOW + HIGH, b"??", "??", "??"),
    (f"{LAST}.py", b"\xff.py", "?.py", f"{LAST}.py"),
    (HIGH + BYTE, "\U0001f480".encode(), "\U0001f480", "\U0001f480"),
    (BYTE + LAST + NO_BYTE, b"\x80\xff?", "???", f"{BYTE}{LAST}?"),
]


@pytest.mark.parametrize(("text", "data", "valid", "path"), CASES, ids=ascii)
def test_halves_of_pairs(text, data, valid, path):
    assert (to_bytes(text), valid_text(text), path_text(text)) == (data, valid, path)
    assert has_halves(text) == any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


@given(any_text)
def test_every_text_has_bytes(text):
    valid_text(text).encode("utf-8")
    assert os.fsencode(path_text(text)) == to_bytes(text)
    assert valid_text(valid_text(text)) == valid_text(text)
    if not has_halves(text):
        assert to_bytes(text) == text.encode("utf-8")
        assert valid_text(text) == path_text(text) == text


@given(st.binary())
def test_every_bytes_come_back(data):
    assert to_bytes(from_bytes(data)) == data
