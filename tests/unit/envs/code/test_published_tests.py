"""LiveCodeBench's tests as they are published: unpacked once for the samples of a problem, beside the event loop."""

import asyncio
import base64
import json
import pickle
import threading
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verigym.envs.code import grade
from verigym.envs.code.grade import ProgramGrader
from verigym.envs.datasets.livecodebench import decode_cases, list_of_json
from verigym.envs.task import Task

CASES = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}, {"input": "4 5\n", "output": "9\n"}]
PACKED = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(CASES)))).decode()


def test_samples_of_a_problem_share_what_was_unpacked_on_a_thread(monkeypatch):
    read, before = [], grade.read_tests

    def read_tests(*args, **kwargs):
        read.append(threading.get_ident())
        return before(*args, **kwargs)

    class Box:
        def __init__(self, *_, **__):
            pass

        async def run_stdin(self, program, inputs, **_):
            assert inputs == ["1 2\n", "4 5\n"]
            return [grade.ProgramRun(status="ok", stdout=text) for text in ("3\n", "8\n")]

    monkeypatch.setattr(grade, "read_tests", read_tests)
    monkeypatch.setattr(grade, "ProgramBox", Box)
    grade._unpacked.cache_clear()
    hidden = {"encoded_tests": {"public": "", "private": PACKED}, "compare": "livecodebench"}
    task = Task(id="a", family="code", prompt="", hidden=hidden)

    async def samples():
        grader = ProgramGrader(backend=None)
        return [await grader.score(task, "```python\nprint(3)\n```") for _ in range(3)]

    scores = asyncio.run(samples())
    assert [one.value for one in scores] == [0.0] * 3
    assert "1 of 2" in scores[0].detail
    assert len(read) == 1
    assert threading.get_ident() not in read


def test_both_encodings_say_the_same():
    assert decode_cases(PACKED) == decode_cases(json.dumps(CASES)) == CASES


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from([None, 1]), st.text(" \t\n\r", max_size=3), st.text('[]{},"1 x', max_size=3))
def test_a_list_is_read_item_by_item_as_json_reads_it(value, indent, space, behind):
    text = space + json.dumps(value, indent=indent) + space
    assert list_of_json(text) == (value if isinstance(value, list) else None)
    for broken in (text + behind, text[:-1], behind + text):
        try:
            expected = json.loads(broken)
        except ValueError:
            with pytest.raises(ValueError, match=r"."):
                list_of_json(broken)
        else:
            assert list_of_json(broken) == (expected if isinstance(expected, list) else None)
