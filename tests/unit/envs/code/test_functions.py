"""Which function of a program is called: names that a prelude imports are no answers, and ``Solution`` comes first."""

import asyncio

import pytest

from verigym.envs.code.grade import ProgramGrader
from verigym.envs.datasets.livecodebench import PRELUDE
from verigym.envs.task import Task

METHOD = "class Solution:\n    def {name}(self, values):\n        return sum(values)\n"
# name of the function asked for, program, whether it gives the sum of a list
PROGRAMS = {
    "a method named as itertools has it": ("count", METHOD, True),
    "as re has it": ("search", METHOD, True),
    "as heapq has it": ("merge", METHOD, True),
    "as itertools has it, product": ("product", METHOD, True),
    "as a builtin": ("sum", METHOD, True),
    "as a module": ("copy", METHOD, True),
    "as math has it": ("dist", METHOD, True),
    "a helper of the method's name": ("total", "def total(a, b): return a + b\n" + METHOD, True),
    "a helper after it": ("total", METHOD + "def total(a, b): return a + b\n", True),
    "the prelude's object is used beside it": (
        "count",
        METHOD.replace("return sum", "next(count(3))\n        return sum"),
        True,
    ),
    "a function named as the prelude has it": ("reduce", "def reduce(values): return sum(values)", True),
    "a name that is assigned": ("fsum", "fsum = lambda values: sum(values)", True),
    "a class without the method": ("total", "class Solution:\n    pass\ndef total(values): return sum(values)", True),
    "a method made at start": (
        "total",
        "class Solution:\n    def __init__(self):\n        self.total = sum\n",
        True,
    ),
    "the program's own import": ("fsum", "from math import fsum", True),
    "the program's own star": ("fsum", "from math import *", True),
    "nothing": ("fsum", "pass", False),
    "only its use": ("fsum", "print(fsum([1]))", False),
    "another method": ("fsum", METHOD.replace("{name}", "total"), False),
    "another function": ("fsum", "def total(values): return sum(values)", False),
}


@pytest.mark.parametrize("case", PROGRAMS)
def test_the_function_that_is_called(backend, case):
    name, program, right = PROGRAMS[case]
    hidden = {"fn_name": name, "prelude": PRELUDE, "compare": "livecodebench"}
    hidden["tests"] = [{"args": [[1, 2, 3]], "expected": 6}, {"args": [[]], "expected": 0}]
    task = Task(id=case, family="code", prompt="", hidden=hidden)
    response = f"```python\n{program.replace('{name}', name)}\n```"
    assert asyncio.run(ProgramGrader(backend).score(task, response)).passed is right
