"""Programs that are the same but for names."""

import random

import pytest

from verigym.envs.trace.programs import small_program
from verigym.envs.trace.run import TraceJob, context_of
from verigym.envs.trace.twins import twin_key

PROGRAM = "def f(a, b):\n    c = a + len(b)\n    return c\n"


@pytest.mark.parametrize(
    "twin",
    [
        "def g(x, y):\n    z = x + len(y)\n    return z\n",
        "def f(a, b):\n\n    c = (a + len(b))  # a sum\n    return c\n",
        "def f(b, a):\n    c = b + len(a)\n    return c\n",
    ],
)
def test_names_comments_and_layout_do_not_count(twin):
    assert twin_key(twin) == twin_key(PROGRAM)


@pytest.mark.parametrize(
    "other",
    [
        "def f(a, b):\n    c = a - len(b)\n    return c\n",
        "def f(a, b):\n    c = b + len(a)\n    return c\n",
        "def f(a, b):\n    c = a + len(b)\n    return a\n",
        "def f(a, b):\n    c = a + sum(b)\n    return c\n",
        "def f(a, b):\n    c = a + b.len\n    return c\n",
    ],
)
def test_what_a_program_does_counts(other):
    assert twin_key(other) != twin_key(PROGRAM)


def test_the_traced_call_does_not_count():
    keys = {twin_key(context_of(TraceJob(source=PROGRAM, call=call))) for call in ("f(1, [])", "f(a=2, b=[3])")}
    assert keys == {twin_key(PROGRAM)}
    own = PROGRAM + "\n\ndef main():\n    return f(1, [])\n"
    assert twin_key(own) != twin_key(PROGRAM)


def test_what_is_no_program_is_its_own_key():
    assert twin_key("def f(:\n") == "def f(:\n"


def test_small_programs_are_many():
    keys = {twin_key(small_program(random.Random(seed)).source) for seed in range(500)}
    assert len(keys) > 350
