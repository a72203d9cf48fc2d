"""Rows of files in three formats."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from verigym.envs.datasets.files import read_rows
from verigym.errors import TaskError

ROWS = [{"id": 1, "text": "größe \u2028 x"}, {"id": 2, "text": "b"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def values(path):
    return [row.value for row in read_rows(path)]


def test_the_format_is_told_by_content_not_by_name(tmp_path):
    path = tmp_path / "rows.txt"
    path.write_text(LINES, encoding="utf-8")
    assert values(path) == ROWS
    path.write_text("\ufeff" + LINES, encoding="utf-8")
    assert values(path) == ROWS
    path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8")
    assert values(path) == ROWS
    path.write_bytes(gzip.compress(LINES.encode()))
    assert values(path) == ROWS
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert values(path) == ROWS


def test_rows_know_where_they_stand(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert [row.where for row in read_rows(path)] == ["rows.jsonl, line 1", "rows.jsonl, line 3"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"a": 1}\n{"a": \n', "line 2: not JSON"),
        (b'{"a": 1}\n[1]\n', "line 2: a JSON object is expected, this is a list"),
        (b'[{"a": 1}, 2]', "element 2: a JSON object is expected, this is a int"),
        (b'[{"a": 1}', "not JSON"),
        (b'{"a": "\xff"}\n', "cannot be read as UTF-8"),
        (b"\x1f\x8bnonsense", "cannot be read"),
        (b"PAR1nonsense", "cannot be read as Parquet"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_broken_is_told_with_its_place(tmp_path, content, told):
    path = tmp_path / "rows"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=told):
        values(path)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(TaskError, match="no such file"):
        values(tmp_path / "none")
    with pytest.raises(TaskError, match="cannot be read"):
        values(tmp_path)


def test_an_empty_file_has_no_row(tmp_path):
    (tmp_path / "rows").write_text("")
    assert values(tmp_path / "rows") == []
