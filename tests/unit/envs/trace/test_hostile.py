"""Programs that mean harm, or are merely odd: bounded, flagged, and nothing lost of what was recorded before."""

import pytest

VIOLENT = """
class Meta(type):
    def __hash__(self): raise SystemExit
    def __eq__(self, other): raise SystemExit
    def __getattribute__(self, name):
        print("effect")
        raise ValueError
    __mro__ = property(lambda self: 1 / 0)

class Shown(metaclass=Meta):
    def __init__(self): pass
    def __repr__(self):
        print("effect")
        raise ValueError
    def __getattribute__(self, name):
        print("effect")
        raise ValueError
    __class__ = property(lambda self: 1 / 0)

class Slow(Exception):
    def __repr__(self):
        while True: pass
    __str__ = __repr__
    args = property(lambda self: 1 / 0)

class Endless(list):
    def __iter__(self):
        while True: yield 1
    def __len__(self): return 10 ** 9

class Mapping(dict):
    def items(self): raise SystemExit

class Space(type):
    @classmethod
    def __prepare__(cls, name, bases): return Mapping()

def f():
    shown, endless, kind = Shown(), Endless([1, 2]), Shown
    class Odd(metaclass=Space):
        z = 1
    try:
        raise Slow(1)
    except Slow as error:
        kept = error
    return 3
"""


def test_no_code_of_a_value_is_run(trace):
    run = trace(VIOLENT, "f()")
    assert (run.ended, run.value, run.stdout, run.flags) == ("returned", "3", "", frozenset())
    known = [frame.locals for frame in run.trace.frames if "endless" in frame.locals]
    assert known[0]["endless"] == "Endless([1, 2])"
    assert known[0]["shown"] == "<Shown>"
    assert {"Slow(1)"} == {frame.value for frame in run.trace.frames if frame.event == "exception"}


def test_an_endless_loop_ends_and_keeps_its_frames(trace):
    run = trace("def f():\n    i = 0\n    while True:\n        i += 1\n", "f()", cpu_s=1.0, events=50)
    assert (run.ended, run.flags) == ("timeout", {"timeout"})
    assert len(run.trace.frames) == 50
    assert not run.trace.ended


def test_an_endless_loop_in_c_and_a_crash_there_keep_their_frames(trace):
    run = trace("import itertools\ndef f():\n    x = 1\n    return sum(itertools.count())\n", "f()", cpu_s=1.0)
    assert (run.ended, run.flags) == ("timeout", {"timeout"})
    assert run.trace.frames[-1].locals == {"x": "1"}
    run = trace("import ctypes\ndef f():\n    x = 1\n    return ctypes.string_at(0)\n", "f()")
    assert (run.ended, run.flags & {"died"}) == ("died", {"died"})
    assert run.trace.frames[-1].locals == {"x": "1"}


def test_what_happens_after_the_last_event_counts(trace):
    run = trace(
        "def f():\n    i = 0\n    while i < 5000:\n        i += 1\n    print(i)\n    return i\n", "f()", events=20
    )
    assert (run.ended, run.value, run.stdout, run.flags) == ("returned", "5000", "5000\n", {"events"})
    assert len(run.trace.frames) == 20


def test_huge_values_are_cut(trace):
    source = "def f():\n    a = list(range(10 ** 6)); b = 'x' * 10 ** 7; c = 10 ** 9000; d = set(range(9999))\n"
    source += "    e = []\n    for _ in range(300): e = [e]\n    g = {}\n    g['g'] = g\n    return len(a)\n"
    run = trace(source, "f()", value_chars=60, items=5)
    assert run.value == "1000000"
    assert run.flags == {"cut", "hidden"}  # what is within itself does not say in which of those around it
    shown = [value for frame in run.trace.frames for value in frame.locals.values()]
    assert max(map(len, shown)) < 120
    assert "[0, 1, 2, 3, 4, ...]" in shown
    assert "<set of 9999 ...>" in shown
    assert "{'g': ...}" in shown


@pytest.mark.parametrize(
    ("body", "flags"),
    [
        ("import threading; t = threading.Thread(target=print); t.start(); t.join(); return 1", {"threads"}),
        ("import os; p = os.fork(); p or os._exit(0); os.waitpid(p, 0); return 1", {"fork"}),
        ("import os; p = os.fork(); p and os.waitpid(p, 0); return 1", {"fork"}),
        ("import subprocess; subprocess.run(['true']); return 1", {"subprocess", "fork"}),
        ("import sys; sys.settrace(None); return 1", {"settrace"}),
        ("import sys; sys.settrace(lambda *a: 1 / 0); return 1", {"settrace"}),
        ("import ctypes; ctypes.CDLL(None); return 1", {"ctypes"}),
        ("import os; os.write(1, b'raw'); return 1", {"descriptor"}),
        ("import zlib, array; z = zlib.decompressobj(); a = array.array('i', [1]); return 1", set()),
    ],
)
def test_what_cannot_be_followed_is_flagged(trace, body, flags):
    run = trace(f"def f():\n    {body}\n", "f()")
    assert run.flags - {"fork"} == flags - {"fork"}  # some Pythons fork to start a program
    assert "fork" in run.flags or flags != {"fork"}
    if run.ended == "returned":
        assert run.value == "1"
    else:
        assert "settrace" in flags
    assert len(run.trace.frames) >= 4


def test_an_exit_keeps_what_came_before(trace):
    soft = trace("import sys\ndef f():\n    x = 1\n    sys.exit('bye')\n", "f()")
    assert (soft.ended, soft.detail, soft.flags) == ("exit", "bye", {"exit"})
    assert soft.trace.frames[-4].value == "SystemExit('bye')"
    hard = trace("import os\ndef f():\n    x = 1\n    os._exit(3)\n", "f()")
    assert (hard.ended, hard.flags) == ("died", {"died"})
    assert hard.trace.frames[-1].locals == {"x": "1"}
    killed = trace("import os\ndef f():\n    x = 1\n    os.kill(os.getpid(), 9)\n", "f()")
    assert (killed.ended, killed.trace.frames[-1].locals) == ("died", {"x": "1"})


def test_deep_recursion(trace):
    source = "def f(n):\n    return f(n + 1)\n"
    source += "def g():\n    try:\n        f(0)\n    except RecursionError:\n        return 1\n"
    run = trace(source, "g()", events=100_000)
    assert run.value == "1"
    assert run.flags == {"recursion"}  # and nobody says that the program touched the tracer
    assert run.trace.frames[-1].value == "1"  # what came after it was caught is there


def test_a_program_that_writes_rows_of_ours_only_fools_itself(trace):
    run = trace('def f():\n    print(\'["e", "line", 1, 1, {}, null]\')\n    print(\'["d"\')\n    return 2\n', "f()")
    assert run.value == "2"
    assert run.stdout == '["e", "line", 1, 1, {}, null]\n["d"\n'
    assert len(run.trace.frames) == 8


def test_a_file_that_is_no_program(trace):
    run = trace("def f(:\n", "1")
    assert run.ended == "compile"
    assert run.detail.startswith("SyntaxError")
    assert run.trace.frames == ()
