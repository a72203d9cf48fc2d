"""Rows of files in three formats."""

import gzip
import json
import tempfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from verigym.envs.datasets.files import read_rows
from verigym.envs.datasets.folders import digest_of, read_source
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
    table = pyarrow.Table.from_pylist(ROWS)
    for kind in (pyarrow.ipc.new_stream, pyarrow.ipc.new_file):
        with path.open("wb") as out, kind(out, table.schema) as writer:
            writer.write_table(table, max_chunksize=1)
        assert values(path) == ROWS


@pytest.mark.parametrize(
    "text",
    [
        f"\n \n{json.dumps(ROWS)}",
        "\n\n" + LINES,
        "".join(json.dumps(row, indent=2) + "\n" for row in ROWS),
        "\n" + "\n\n".join(json.dumps(row, indent="\t") for row in ROWS),
        "{" + LINES[1:].replace(", ", ",\n"),
    ],
)
def test_objects_and_arrays_may_begin_late_and_go_over_lines(tmp_path, text):
    (tmp_path / "rows").write_text(text)
    assert values(tmp_path / "rows") == ROWS


def test_folders_of_files_of_splits_and_of_saved_datasets(tmp_path):
    import datasets

    saved = tmp_path / "saved"
    datasets.Dataset.from_list([*ROWS, ROWS[0]]).save_to_disk(saved, num_shards=2)
    rows = [*ROWS, ROWS[0]]
    assert [row.value for row in read_source(saved)] == rows
    splits = tmp_path / "splits"
    datasets.DatasetDict(
        train=datasets.Dataset.from_list(ROWS[:1]), test=datasets.Dataset.from_list(ROWS[1:])
    ).save_to_disk(splits)
    assert [row.value for row in read_source(splits, split="test")] == ROWS[1:]
    assert [row.value for row in read_source(splits / "train")] == ROWS[:1]
    for split in (None, "validation"):
        with pytest.raises(TaskError, match="has the splits test, train"):
            list(read_source(splits, split=split))
    arrow = tmp_path / "arrow"
    arrow.mkdir()
    for file in saved.glob("*.arrow"):
        (arrow / file.name).write_bytes(file.read_bytes())
    assert [row.value for row in read_source(arrow)] == rows
    hub = tmp_path / "hub" / "data"
    hub.mkdir(parents=True)
    for name, part in (("train-00000-of-00001", ROWS[:1]), ("test-00000-of-00001", ROWS[1:])):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(part), hub / f"{name}.parquet")
    (hub.parent / "README.md").write_text("x")
    assert [row.value for row in read_source(hub.parent, split="train")] == ROWS[:1]
    (tmp_path / "none").mkdir()
    with pytest.raises(TaskError, match="no file that ends in"):
        list(read_source(tmp_path / "none"))
    (saved / "state.json").write_text("{}")
    with pytest.raises(TaskError, match="save_to_disk"):
        list(read_source(saved))


def test_a_folders_digest_is_of_names_and_content(tmp_path):
    def of(files):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        for name, text in files.items():
            (folder / name).write_text(text)
        return digest_of(folder)

    assert of({"a": "1", "b": "2"}) == of({"b": "2", "a": "1"})
    assert len({of({"a": "1", "b": "2"}), of({"a": "2", "b": "1"}), of({"a": "1"}), of({"c": "1", "b": "2"})}) == 4


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
        (b'{\n "a": 1,\n}\n', "line 1: not JSON"),
        (b'\n{"a": 1\n}\n\n{"b": 2]', "line 5: not JSON"),
        (b'{"a": 1\n}\n[1]', "line 3: a JSON object is expected, this is a list"),
        (b"\xff\xff\xff\xffnonsense", "cannot be read as Arrow"),
        (b"ARROW1nonsense", "cannot be read as Arrow"),
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
