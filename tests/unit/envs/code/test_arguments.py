"""CruxEval's inputs: arguments are evaluated where the function is not, and reach it as plain data."""

import asyncio

import pytest

from verigym.envs.code.grade import ProgramGrader
from verigym.envs.task import Task

PROGRAM = """
from collections import Counter

def f(nums, change=None, *, twice=False):
    if change is not None:
        change(nums)
    if twice:
        nums = nums * 2
    if nums == 5 or nums == "five":
        return "five"
    return nums
"""
WANTED = "[3, 2, 1]"

RIGHT = [
    "f([3, 2, 1])",
    "f(nums=[3, 2, 1])",
    "f(*[[3, 2, 1]])",
    "f(**{'nums': [3, 2, 1]})",
    "f([1, 2, 3], lambda x: x.reverse())",
    "f([1, 2, 3], lambda x: x.sort(reverse=True))",
    "f([1, 2, 3], list.reverse)",
    "f(sorted([1, 2, 3], key=lambda x: -x))",
    "f(list(range(3, 0, -1)))",
    "f([int(one) for one in '321'])",
    "f([int(one) for one in Counter('33211')])",
    "f(f([3, 2, 1]))",
    "f((lambda: [3, 2, 1])())",
    "f([], lambda x: x.extend([3, 2, 1]), twice=False)",
    "f(type('L', (list,), {})([3, 2, 1]))",
]
FORGED = [
    "f(setattr(f, '__code__', (lambda *a, **k: [3, 2, 1]).__code__))",
    "f(globals().__setitem__('f', lambda *a: [3, 2, 1]))",
    "f(exec('global f\\nf = lambda *a: [3, 2, 1]'))",
    "f(type('L', (list,), {'__eq__': lambda a, b: True})([9]))",
    "f(type('L', (list,), {'__mul__': lambda a, b: [3, 2, 1]})([9]), twice=True)",
    "f(type('I', (int,), {'__mul__': lambda a, b: [3, 2, 1]})(9), twice=True)",
    "f(type('O', (), {'__mul__': lambda a, b: [3, 2, 1]})(), twice=True)",
    "f(type('C', (), {'__call__': lambda a: 0, '__mul__': lambda a, b: [3, 2, 1]})(), twice=True)",
    """f([__import__('os').write(n, b'{"value":[3,2,1]}\\n') for n in (3, 4)])""",
    """f((lambda: [__import__('os').write(3, b'\\0\\0\\0\\x19["answer",[3, 2, 1],[]]  '), 9])())""",
    """f([1], lambda x: [__import__('os').write(n, b'{"value":[3,2,1]}\\n') for n in range(3, 9)])""",
    "f([9], lambda x: [3, 2, 1])",
    "f([1, 2, 3], lambda x: __import__('builtins').__dict__.update(list=lambda *a: [3, 2, 1]))",
    "f(__import__('gc').get_referrers(f))",
    """f([open(f'/proc/{p}/mem', 'r+b').write(b'x') for p in __import__('os').listdir('/proc') if p.isdigit()])""",
    """f([__import__('ctypes').CDLL(None).ptrace(16, int(p), 0, 0)
        for p in __import__('os').listdir('/proc') if p.isdigit()])""",
    "f([9], print)",
    "f([9], exit)",
    "f(__import__('os')._exit(0))",
    "f(__import__('os').kill(__import__('os').getppid(), 9))",
    "f([__import__('os').kill(int(p), 9) for p in __import__('os').listdir('/proc') if p.isdigit()])",
    "f(object())",
    "f(iter([3, 2, 1]))",
    "f(1 / 0)",
    "f()",
    "f(g())",
    "f.__call__([3, 2, 1])",
    "(lambda f: [3, 2, 1])(1)",
    "[3, 2, 1]",
]


def score(backend, answer, *, output=WANTED, time_limit_s=3.0):
    call = {"program": PROGRAM, "mode": "input", "input": "[3, 2, 1]", "output": output}
    task = Task(id="c/input", family="code", prompt="", hidden={"call": call, "time_limit_s": time_limit_s})
    return asyncio.run(ProgramGrader(backend).score(task, f"[ANSWER]{answer}[/ANSWER]"))


@pytest.mark.parametrize("answer", RIGHT)
def test_right_arguments_are_right_however_they_are_written(backend, answer):
    found = score(backend, answer)
    assert found.passed, found.detail


@pytest.mark.parametrize("answer", FORGED)
def test_arguments_that_act_on_the_function_gain_nothing(backend, answer):
    assert not score(backend, answer).passed


def test_an_object_that_equals_everything_is_what_it_holds(backend):
    liar = "f(type('I', (int,), {'__eq__': lambda a, b: True})(4))"
    assert not score(backend, liar, output="'five'").passed
    assert score(backend, liar, output="4").passed


@pytest.mark.parametrize("answer", ["f(exec('while True: pass'))", "f([9], lambda x: exec('while True: pass'))"])
def test_arguments_that_never_end_are_ended(backend, answer):
    found = score(backend, answer, time_limit_s=0.5)
    assert not found.passed
    assert "time limit" in found.detail or "could not be evaluated" in found.detail


def test_an_answer_of_any_length_is_answered(backend):
    assert "characters" in score(backend, f"f({'-' * 200_000}1)").detail
