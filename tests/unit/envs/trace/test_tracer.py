"""What a trace says, and that tracing changes nothing."""

import ast
import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verigym.envs.code.box import ProgramBox
from verigym.envs.sandbox import control_group
from verigym.envs.trace.programs import any_program, small_program
from verigym.envs.trace.run import TraceBox, TraceJob, context_of
from verigym.errors import TaskError
from verigym.model.chat.trace import depths_of, unfold
from verigym.model.chat.trace_tokens import TraceFormat
from verigym.model.tokenizer import train_tokenizer

SEEDS = st.lists(st.integers(0, 2**32), min_size=1, max_size=12)


def steps(run):
    """(event, line, what is new) of each frame, briefly."""
    return [
        (frame.event, line, {n: v for n, v in frame.locals.items() if v != ".."} or frame.value)
        for frame, line in zip(run.trace.frames, run.lines, strict=True)
    ]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["def f(x):\n    return x + 1\n" * 3], 300)


@settings(max_examples=10)
@given(SEEDS)
def test_generated_programs(backend, tokenizer, seeds):
    """Round trip exact; final values are plain execution's; printed text is unchanged; twice the same."""
    jobs = [any_program(random.Random(seed)) for seed in seeds]

    async def all_ways():
        box, programs = TraceBox(backend), ProgramBox(backend)
        direct = [(await programs.run_expressions(job.source, [job.call]))[0] for job in jobs]
        return await box.trace(jobs), await box.trace(jobs, untraced=True), await box.trace(jobs), direct

    form = TraceFormat(tokenizer)
    for run, plain, twice, direct in zip(*asyncio.run(all_ways()), strict=True):
        assert (run.ended, run.value, run.stdout) == (plain.ended, plain.value, plain.stdout)
        assert run == twice
        assert run.ended == "returned"
        assert run.trace.ended
        assert run.flags == frozenset()
        assert run.trace.frames[-1].value == run.value
        assert ast.literal_eval(run.value) == direct.value
        assert form.decode(form.encode(run.trace)) == run.trace
        assert min(depths_of(run.trace.frames)) == 1
        assert ".." not in {value for known in unfold(run.trace.frames) for value in known.values()}


@settings(max_examples=4)
@given(SEEDS)
def test_small_programs(backend, seeds):
    jobs = [small_program(random.Random(seed)) for seed in seeds]
    for job, run in zip(jobs, asyncio.run(TraceBox(backend).trace(jobs)), strict=True):
        names = {}
        exec(context_of(job), names)
        assert run.value == repr(names["main"]())
        assert run.flags == frozenset()


def test_lines_calls_and_returns(trace):
    run = trace("def f(n):\n    total = 0\n    for i in range(n):\n        total += i\n    return total\n", "f(2)")
    assert steps(run) == [
        ("call", 8, None),
        ("line", 9, None),
        ("call", 1, {"n": "2"}),
        ("line", 2, None),
        ("line", 3, {"total": "0"}),
        ("line", 4, {"i": "0"}),
        ("line", 3, None),
        ("line", 4, {"i": "1"}),
        ("line", 3, {"total": "1"}),
        ("line", 5, None),
        ("return", 5, "1"),
        ("return", 9, "1"),
    ]
    assert run.trace.context.splitlines()[7] == "def main():  # << START_OF_TRACE"
    assert run.trace.frames[0].source == "def main():\n"


def test_an_exception_that_is_caught_and_one_that_leaves(trace):
    source = (
        "def g(x):\n    try:\n        return 1 // x\n    finally:\n        x = 2\n\ndef f():\n    try:\n        g(0)\n"
    )
    source += "    except ZeroDivisionError as error:\n        return error.args\n"
    run = trace(source, "f()")
    told = steps(run)
    raised = "ZeroDivisionError('integer division or modulo by zero')"
    assert told[5:13] == [
        ("call", 1, {"x": "0"}),
        ("line", 2, None),
        ("line", 3, None),
        ("exception", 3, raised),
        ("line", 5, None),
        ("return", 5, None),
        ("exception", 9, raised),
        ("line", 10, None),
    ]
    assert told[-1] == ("return", 15, "('integer division or modulo by zero',)")
    leaves = trace("def f():\n    raise ValueError('x', 1)\n", "f()")
    assert (leaves.ended, leaves.value, leaves.detail) == ("raised", "ValueError('x', 1)", "ValueError, line 2")
    assert steps(leaves)[-3:] == [("return", 2, None), ("exception", 6, "ValueError('x', 1)"), ("return", 6, None)]
    assert leaves.trace.ended


def test_recursion_generators_closures_classes(trace):
    source = """
import functools

def noted(function):
    @functools.wraps(function)
    def inner(*values):
        return function(*values)
    return inner

class Stack:
    size = 0
    def push(self, value):
        self.size += value
        return self

@noted
def down(n):
    yield n
    if n:
        yield from down(n - 1)

def f():
    count = 0
    def add():
        nonlocal count
        count += 1
    add()
    stack = Stack().push(3)
    return list(down(1)), count
"""
    run = trace(source, "f()")
    assert run.value == "([1, 0], 1)"
    told = steps(run)
    assert ("call", 24, {"count": "0"}) in told
    assert [line for event, line, _ in told if event == "call"][:4] == [32, 22, 24, 12]
    assert {"stack": "<Stack size=3>"} in [new for _, _, new in told]
    assert ("return", 18, "1") in told  # a yield
    assert run.trace.frames[[line for _, line, _ in told].index(17)].source == "def down(n):\n"
    assert max(depths_of(run.trace.frames)) == 4


def test_asynchronous_functions(trace):
    source = "import asyncio\n\nasync def w(x):\n    await asyncio.sleep(0)\n    return x\n\nasync def m():\n"
    source += "    return await asyncio.gather(w(1), w(2))\n"
    run = trace(source, "asyncio.run(m())")
    # What an await hands on is a future, whose state C holds.
    assert (run.ended, run.value, run.flags) == ("returned", "[1, 2]", {"hidden"})
    assert [new for event, line, new in steps(run) if event == "return" and line in (4, 5)] == [
        "None",
        "None",
        "1",
        "2",
    ]


def test_a_script(trace):
    run = trace("x = int(input())\nprint(x + 1)\n", stdin="41\n")
    assert run.stdout == "42\n"
    assert run.trace.context.startswith("# << START_OF_TRACE\nx = int")
    assert steps(run)[-2:] == [("line", 3, {"x": "41"}), ("return", 3, "None")]


def test_values(trace):
    source = """
import collections, dataclasses, enum, datetime, decimal, fractions, pathlib, re

@dataclasses.dataclass
class Point:
    x: int
    y: list

class Color(enum.Enum):
    RED = 1

class Slotted:
    __slots__ = ("a", "b")
    def __init__(self):
        self.a = self

class Words(list):
    pass

Pair = collections.namedtuple("Pair", "left right")

def f():
    values = [Point(1, []), Color.RED, Slotted(), Words(["w"]), Pair(1, "r"), {3, 11, 2}, {"b", "a"}, frozenset(), 1.5]
    more = [f, len, int, re.compile("a+"), b"x", range(3), (1,), collections.Counter("aab"), collections.deque([1])]
    dates = [datetime.date(2020, 1, 2), decimal.Decimal("1.0"), fractions.Fraction(1, 3), pathlib.PurePosixPath("/a")]
    return None
"""
    run = trace(source, "f()")
    found = unfold(run.trace.frames)[-2]
    assert found["values"] == (
        "[Point(x=1, y=[]), <Color.RED: 1>, <Slotted a=...>, Words(['w']), Pair(left=1, right='r'), {2, 3, 11}, "
        "{'a', 'b'}, frozenset(), 1.5]"
    )
    assert found["more"] == (
        "[<function f>, <built-in function len>, <class 'int'>, re.compile('a+'), b'x', range(0, 3, 1), (1,), "
        "Counter({'a': 2, 'b': 1}), deque([1])]"
    )
    assert found["dates"] == ("[datetime.date(2020, 1, 2), Decimal('1.0'), Fraction(1, 3), PurePosixPath('/a')]")


def test_what_the_interpreter_keeps_in_an_instance_is_not_told(trace):
    """C's members hold addresses (__vectorcalloffset__), and wrappers copy a function's name: neither is state."""
    source = """
import functools

class Later(functools.partial):
    pass

class Wrapper:
    def __init__(self, function):
        functools.update_wrapper(self, function)
        self.calls = 2

def f():
    values = [Later(len, "ab"), Wrapper(f)]
    return None
"""
    found = unfold(trace(source, "f()").trace.frames)[-2]
    assert found["values"] == (
        "[<Later func=<built-in function len>, args=('ab',), keywords={}>, <Wrapper __wrapped__=<function f>, calls=2>]"
    )


def test_a_set_too_large_for_its_text_is_the_same_in_any_order(trace):
    """Objects are hashed by their addresses, so that which comes first, and takes the room, is chance."""
    source = """
class State:
    def __init__(self, name, hash):
        self.name, self.hash = name * 60, hash
    def __hash__(self):
        return self.hash

def f(order):
    states = {State(name, order * (at + 1) % 7) for at, name in enumerate("abcdefgh")}
    return None
"""
    one, other = (unfold(trace(source, f"f({order})").trace.frames)[-2]["states"] for order in (1, 6))
    assert one == other
    assert one.count("State") == 8
    assert ".." in one


def test_a_name_that_the_source_uses_is_not_taken(trace):
    run = trace("def main(x):\n    return x\n", "main(3)")
    assert run.value == "3"
    assert "def main_():  # << START_OF_TRACE" in run.trace.context


def test_a_call_must_be_an_expression_on_one_line(backend):
    for call in ("x = 1", "f(", "f(\n1)"):
        with pytest.raises(TaskError):
            asyncio.run(TraceBox(backend).trace([TraceJob(source="", call=call)]))


def test_where_no_control_group_can_be_had(trace, monkeypatch):
    monkeypatch.setattr(control_group, "make", lambda *limits: None)
    found = trace("print(input())\nx = 1", stdin="a line\n")
    assert (found.ended, found.stdout) == ("returned", "a line\n")
