"""Files that are whole or not there."""

import json
import tracemalloc

import pytest

from verigym.envs.runs.files import mend_lines, read_object, write_json, write_text, write_with, written_whole
from verigym.errors import ConfigError


def test_what_fails_in_the_middle_leaves_what_was_there(tmp_path):
    path = tmp_path / "deep" / "report.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError), written_whole(path) as out:
        out.writelines(["{", 1])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    with pytest.raises(FileNotFoundError):
        write_with(path, lambda partial: partial.rename(path.parent / "away" / "gone"))
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert [one.name for one in path.parent.iterdir()] == ["report.json"]
    write_text(path, "two")
    assert path.read_text() == "two"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"a"', "cannot be read"),
        (b"\x00" * 10, "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b"[1]", "holds list, no object"),
        (b"null", "holds NoneType"),
    ],
)
def test_what_is_no_object_is_told_with_the_remedy(tmp_path, content, told):
    path = tmp_path / "recipe.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"recipe\.json, the recipe, {told}.*; restore it"):
        read_object(path, "the recipe", "restore it", ConfigError)


@pytest.mark.parametrize("size", [10, 100_000, 1 << 20])
@pytest.mark.parametrize("end", ["", "\n", '\n{"id": "c', '\n{"id": "cut off by a letter of two bytes ü'.encode()[:-1]])
def test_a_row_that_was_cut_off_goes_and_no_file_is_read_whole(tmp_path, size, end):
    out = tmp_path / "episodes.jsonl"
    whole = json.dumps({"id": "a", "text": "x" * size}).encode()
    rows, tail = [whole] * 4, end if isinstance(end, bytes) else end.encode()
    out.write_bytes(b"\n".join(rows) + tail)
    tracemalloc.start()
    mend_lines(out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert out.read_bytes() == b"".join(row + b"\n" for row in rows)
    assert peak < 3 * size + 300_000 if end == "" else peak < 300_000
    mend_lines(out)
    assert out.read_bytes() == b"".join(row + b"\n" for row in rows)


@pytest.mark.parametrize("text", [b"", b'{"id": "c', b"\n"])
def test_a_file_of_no_row_is_emptied(tmp_path, text):
    out = tmp_path / "episodes.jsonl"
    out.write_bytes(text)
    mend_lines(out)
    assert out.read_bytes().strip() == b""


def test_what_is_no_row_stays(tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("one\ntwo")
    mend_lines(notes)
    assert notes.read_text() == "one\ntwo"
    mend_lines(tmp_path / "nothing.jsonl")
