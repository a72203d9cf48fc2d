"""``sys.settrace`` and ``sys.monitoring`` say the same, on every interpreter of this machine that has both."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.envs.trace.programs import any_program
from verigym.envs.trace.run import TraceJob

from .conftest import interpreters, trace_with

PYTHONS = interpreters()
WITH_BOTH = sorted(version for version in PYTHONS if version >= (3, 12))

TRICKY = """
import asyncio, contextlib

class Counter:
    def __init__(self, n): self.n = n
    def __iter__(self): return self
    def __next__(self):
        if not self.n:
            raise StopIteration("end")
        self.n -= 1
        return self.n

def thrown():
    try:
        yield 1
    except KeyError as error:
        yield repr(error)
    yield 3

def f(n):
    while n > 0: n -= 1
    for c in Counter(2): pass
    g = thrown()
    a = [next(g), g.throw(KeyError("k")), next(g, None)]
    g.close()
    with contextlib.suppress(ValueError):
        int("x")
    b = {k: v for k, v in zip("ab", (x * 2 for x in [1, 2]))}
    try:
        try:
            raise KeyError(1)
        finally:
            n = 5
    except KeyError:
        n += (lambda y: y
              + 1)(1)
    return (a, b,
            n)

async def values():
    for i in range(2):
        yield i
        await asyncio.sleep(0)

async def collect():
    return [v async for v in values()]
"""


@pytest.mark.skipif(not WITH_BOTH, reason="no Python 3.12 or newer is installed: there is no sys.monitoring to compare")
@pytest.mark.parametrize("version", WITH_BOTH or [None], ids=str)
def test_they_agree_on_what_is_tricky(version):
    for call in ("f(3)", "asyncio.run(collect())"):
        job = TraceJob(source=TRICKY, call=call)
        by_settrace = trace_with(PYTHONS[version], job, backend="settrace")
        assert trace_with(PYTHONS[version], job, backend="monitoring") == by_settrace
        assert by_settrace.flags <= {"hidden"}  # generators
        assert by_settrace.ended == "returned"


@pytest.mark.skipif(not WITH_BOTH, reason="no Python 3.12 or newer is installed: there is no sys.monitoring to compare")
@settings(max_examples=12)
@given(st.integers(0, 2**32))
def test_they_agree_on_generated_programs(seed):
    job = any_program(random.Random(seed))
    python = PYTHONS[WITH_BOTH[0]]
    by_settrace = trace_with(python, job, backend="settrace")
    assert trace_with(python, job, backend="monitoring") == by_settrace
    assert by_settrace.ended == "returned"
    assert trace_with(python, job, untraced=True).stdout == by_settrace.stdout


@pytest.mark.parametrize("version", sorted(PYTHONS), ids=str)
def test_every_python_traces(version):
    run = trace_with(PYTHONS[version], TraceJob(source=TRICKY, call="f(3)"))
    assert run.ended == "returned"
    assert run.flags <= {"hidden"}  # where a generator stands is not seen
    assert run.value == """([1, "KeyError('k')", 3], {'a': 2, 'b': 4}, 7)"""
    assert run.trace.ended
