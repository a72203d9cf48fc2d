"""Tasks and their files: written whole or not at all, read with the line that is wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.envs.registry.opening import read_any_tasks
from verigym.envs.task import Task, read_jsonl, write_jsonl
from verigym.errors import TaskError

texts = st.text(st.characters(), max_size=20)  # lone surrogates too
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
tasks = st.builds(
    Task,
    id=texts,
    family=texts,
    prompt=texts,
    image=st.none() | texts,
    files=st.dictionaries(texts, texts, max_size=2),
    hidden=st.dictionaries(texts, plain | st.lists(plain, max_size=2), max_size=2),
    metadata=st.dictionaries(texts, plain, max_size=2),
)


@settings(max_examples=30)
@given(st.lists(tasks, max_size=3))
def test_a_file_gives_the_tasks_back(tmp_path_factory, some):
    path = tmp_path_factory.mktemp("tasks") / "new" / "tasks.jsonl"
    assert write_jsonl(path, (task.to_json() for task in some)) == len(some)
    assert [Task.from_json(row) for row in read_jsonl(path)] == some
    assert path.read_bytes().isascii()
    assert len(path.read_text().splitlines()) == len(some)


def test_unknown_keys_and_empty_lines_are_passed_over(tmp_path):
    (tmp_path / "t.jsonl").write_text('\n{"id": "a", "family": "f", "prompt": "p", "stars": 3}\n  \n')
    assert list(read_any_tasks(tmp_path / "t.jsonl")) == [Task(id="a", family="f", prompt="p")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"id": "a"}\n\n{"id": \n', "line 3: not JSON"),
        ("{}\n[1]\n", "line 2: a JSON object is expected, this is a list"),
        ("NaN\n", "line 1: a JSON object is expected, this is a float"),
        (b"{}\n\xff\n", "cannot be read as UTF-8"),
    ],
)
def test_a_broken_file_is_told_with_its_line(tmp_path, text, told):
    path = tmp_path / "t.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(TaskError, match=told) as broken:
        list(read_jsonl(path))
    assert str(broken.value).startswith(str(path))


@pytest.mark.parametrize("key", ["id", "family", "prompt"])
def test_a_task_needs_its_keys(tmp_path, key):
    row = {"id": "a", "family": "f", "prompt": "p"}
    write_jsonl(tmp_path / "t.jsonl", [row, {**row, key: 3}])
    with pytest.raises(TaskError, match=f"line 2: a task needs the key '{key}' as a string"):
        read_any_tasks(tmp_path / "t.jsonl")
    del row[key]
    with pytest.raises(TaskError, match=f"a task needs the key '{key}'"):
        Task.from_json(row)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(TaskError, match="no such file; give the path"):
        list(read_jsonl(tmp_path / "none.jsonl"))
    with pytest.raises(TaskError, match="cannot be read"):
        list(read_jsonl(tmp_path))


def test_what_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "t.jsonl"
    write_jsonl(path, [{"old": 1}])

    def rows():
        yield {"new": 1}
        raise KeyError("interrupted")

    with pytest.raises(KeyError):
        write_jsonl(path, rows())
    assert list(read_jsonl(path)) == [{"old": 1}]
