"""Data sets of traces on disk."""

import asyncio
import json

import pytest

from verigym.__main__ import main
from verigym.envs.trace.examples import Example
from verigym.envs.trace.make import make_from_programs
from verigym.envs.trace.shards import read_shards, write_shards
from verigym.errors import TaskError
from verigym.model.chat.trace import Frame, Trace


def example(number):
    frames = (
        Frame(event="call", source="def f(x):\n", locals={"x": str(number)}),
        Frame(event="line", source="    return None\n", locals={}),
        Frame(event="return", source="    return None\n", value=None if number % 2 else "'\ud800'"),
    )
    return Example(trace=Trace(context="c\n", frames=frames), kind="library", origin="o", function="f", cut=number > 3)


def test_rows_read_back(tmp_path):
    examples = [example(number) for number in range(7)]
    manifest = write_shards(tmp_path / "data", examples, about={"source": "o"}, rows_per_shard=3)
    assert [shard["rows"] for shard in manifest["shards"]] == [3, 3, 1]
    assert (manifest["num_traces"], manifest["num_frames"], manifest["source"]) == (7, 21, "o")
    assert list(read_shards(tmp_path / "data")) == examples
    assert len({one.id for one in examples}) == 7


def test_a_folder_is_whole_or_refused(tmp_path):
    with pytest.raises(TaskError, match="holds no data set"):
        list(read_shards(tmp_path))
    write_shards(tmp_path / "data", [example(1)], about={})
    with pytest.raises(TaskError, match="already"):
        write_shards(tmp_path / "data", [example(1)], about={})
    (tmp_path / "data" / "traces-00000.parquet").write_bytes(b"x")
    with pytest.raises(TaskError, match="has changed"):
        list(read_shards(tmp_path / "data"))
    with pytest.raises(TaskError, match="cannot be read"):
        Example.from_row({"frames": "[1]", "context": ""})


def test_generated_programs_become_a_data_set(backend, tmp_path):
    for name in ("a", "b"):
        asyncio.run(make_from_programs("small-programs", 40, tmp_path / name, seed=3, backend=backend))
    first, second = (list(read_shards(tmp_path / name)) for name in ("a", "b"))
    assert first == second
    assert len({one.id for one in first}) == 40
    assert all(one.trace.ended and one.trace.frames[-1].event == "return" for one in first)


def test_the_command(backend, tmp_path, capsys):
    out = str(tmp_path / "data")
    assert main(["tasks", "traces", "programs", "--out", out, "--limit", "20", "--sandbox", "local"]) == 0
    assert "wrote 20 traces" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert manifest["counts"]["kept"] >= 20
    assert main(["tasks", "traces", "programs", "--out", out, "--sandbox", "local"]) == 2
    assert "already" in capsys.readouterr().err
