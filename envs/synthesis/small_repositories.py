"""Small repositories: the quickstart's raw material, each with one bug that its report does not name.

A module has three functions, the last of which calls the other two, and seven lines, each with a comment that says
what it computes. In a broken module two lines contradict their comments: one has the bug, the other a comment that
went out of date. Reading finds the two; only running the tests tells which is which. No file of a held-out repository
is about a function that the same file of a training repository is about.
"""

import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

NOUNS = (
    "price", "count", "weight", "speed", "height", "volume", "score", "length", "rate", "stock", "debt", "power",
    "width", "depth", "heat", "load", "gain", "cost", "limit", "total",
)  # fmt: skip
FILES = (
    "badger", "bear", "beaver", "bison", "boar", "camel", "crow", "deer", "donkey", "dove", "duck", "eagle",
    "falcon", "ferret", "finch", "fox", "frog", "gecko", "goat", "goose", "hare", "hawk", "heron", "horse",
    "lizard", "llama", "lynx", "mole", "moose", "moth", "newt", "otter", "owl", "panda", "pony", "rabbit",
    "raven", "salmon", "seal", "wolf",
)  # fmt: skip
FUNCTIONS = (
    "adjust", "allot", "apply", "assess", "balance", "bill", "blend", "charge", "combine", "convert", "correct",
    "derive", "divide", "draw", "fetch", "fill", "gather", "grade", "join", "level", "lift", "measure", "mix",
    "order", "pack", "pay", "plan", "press", "rank", "repeat", "scale", "settle", "shift", "sort", "spend",
    "stretch", "trade", "trim", "value", "weigh",
)  # fmt: skip
OPERATIONS = (
    ("{} + {}", "add {}"),
    ("{} - {}", "subtract {}"),
    ("{} * {}", "times {}"),
    ("min({}, {})", "at most {}"),
    ("max({}, {})", "at least {}"),
)
"""(code, comment) of the same step."""
NUM_INFIX = 3
"""Of them, those whose code begins with what they change: a call stands there alone."""
LINES_OF_FUNCTIONS = (2, 3, 2)
NUM_LINES = sum(LINES_OF_FUNCTIONS)
KINDS = ("operation", "operand")
"""What a bug changes in a line."""
NUM_CALLS = 3
"""Of a module's last function: the first in the tests that the repository has, the others in the hidden ones."""

CHECK = '''"""Runs the tests, without pytest's start."""

import importlib
import os

failed = []
for file in sorted(os.listdir("tests")):
    if file.startswith("test_"):
        try:
            module = importlib.import_module("tests." + file[:-3])
            for name in dir(module):
                if name.startswith("test_"):
                    getattr(module, name)()
        except Exception as error:
            failed.append(f"{file[5:-3]} fails: {type(error).__name__}")
print("\\n".join(failed) or "all pass")
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A line of a function: ``head`` and one operation on ``base`` and ``operand``."""

    head: str
    base: str
    operation: int
    operand: str

    @property
    def code(self) -> str:
        return self.head + OPERATIONS[self.operation][0].format(self.base, self.operand)

    @property
    def comment(self) -> str:
        return OPERATIONS[self.operation][1].format(self.operand)

    def line(self, said: "Step | None" = None) -> str:
        """The line, under the comment of another step where one is given."""
        return f"{self.code}  # {(said or self).comment}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallModule:
    """A module as it should be.

    Attributes:
        name: of the file, without its suffix.
        heads: "def" lines of its functions.
        steps: of all of them, in order.
        calls: arguments of the last function, and what it returns for them.
    """

    name: str
    heads: tuple[str, ...]
    steps: tuple[Step, ...]
    calls: tuple[tuple[tuple[int, ...], int], ...] = ()

    @property
    def path(self) -> str:
        return f"pkg/{self.name}.py"

    @property
    def function(self) -> str:
        """Name of the last function, which the tests call."""
        return self.heads[-1].removeprefix("def ").partition("(")[0]

    def source(self, changed: Mapping[int, str] | None = None) -> str:
        """The module's text; ``changed`` gives lines by the number of their step."""
        lines = [(changed or {}).get(number, step.line()) for number, step in enumerate(self.steps)]
        functions = []
        for head, size in zip(self.heads, LINES_OF_FUNCTIONS, strict=True):
            functions.append("\n".join([head, *lines[:size]]) + "\n")
            lines = lines[size:]
        return "\n".join(functions)

    def tests(self, num_calls: int = 1) -> str:
        """The text of its test file: a test for each of the first calls."""
        name = self.function
        tests = [
            f"def test_{name}_{number}():\n    assert {name}({', '.join(map(str, values))}) == {value}\n"
            for number, (values, value) in enumerate(self.calls[:num_calls], start=1)
        ]
        return "\n\n".join([f"from pkg.{self.name} import {name}\n", *tests])

    def results(self, changed: Mapping[int, str] | None = None) -> list[int]:
        """What the calls give with some lines changed."""
        scope: dict[str, Any] = {}
        exec(self.source(changed), scope)
        return [scope[self.function](*values) for values, _ in self.calls]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A module with a bug.

    Attributes:
        bug: number of the step whose code is wrong; stale: of the one whose comment is.
        lines: both as they stand in the broken module.
        mended: both as their comments say: right for the bug, wrong for the other.
    """

    module: SmallModule
    kind: str
    bug: int
    stale: int
    lines: Mapping[int, str]
    mended: Mapping[int, str]

    @property
    def source(self) -> str:
        return self.module.source(self.lines)

    @property
    def right_source(self) -> str:
        return self.module.source({self.stale: self.lines[self.stale]})


def places(*, held_out: bool) -> list[tuple[str, str]]:
    """(file, function that its tests call) of one split; no pair is in both."""
    numbered = enumerate(FILES), enumerate(FUNCTIONS)
    pairs = itertools.product(*map(list, numbered))
    return [(file, function) for (a, file), (b, function) in pairs if ((a + b) % 4 == 0) is held_out]


def small_module(file: str, function: str, rng: random.Random) -> SmallModule:
    """A module of this name, whose last function has that one."""
    helpers = rng.sample([one for one in FUNCTIONS if one != function], len(LINES_OF_FUNCTIONS) - 1)
    return _with_calls(_module(file, [*helpers, function], rng), rng)


def small_modules(rng: random.Random, *, held_out: bool, num: int) -> list[SmallModule]:
    """Modules of one split, no two of the same name."""
    found: dict[str, SmallModule] = {}
    while len(found) < num:
        file, function = rng.choice(places(held_out=held_out))
        found[file] = small_module(file, function, rng)
    return list(found.values())


def break_module(module: SmallModule, rng: random.Random, *, bug: int, kind: str) -> Broken | None:
    """The module with a bug in a given step; None where the tests would not tell it, nor which of the two lines has it.

    Every call fails on the broken module. The first, which the repository's own tests make, fails too with the stale
    comment obeyed, before and after the bug is mended.
    """
    stale = rng.choice([number for number in range(NUM_LINES) if number != bug])
    wrong = _changed(module.steps[bug], kind, module, rng)
    said = _changed(module.steps[stale], rng.choice(KINDS), module, rng)
    lines = {bug: wrong.line(module.steps[bug]), stale: module.steps[stale].line(said)}
    mended = {bug: module.steps[bug].line(), stale: said.line()}
    right = [value for _, value in module.calls]
    if any(found == value for found, value in zip(module.results(lines), right, strict=True)):
        return None
    for others in ({bug: lines[bug], stale: mended[stale]}, {stale: mended[stale]}):
        if module.results(others)[0] == right[0]:
            return None
    if any(module.source(lines).splitlines().count(line) > 1 for line in lines.values()):
        return None
    return Broken(module=module, kind=kind, bug=bug, stale=stale, lines=lines, mended=mended)


def as_said(line: str) -> str | None:
    """A line of a function with its code as its comment says; None where it has none, or cannot be read."""
    code, _, comment = line.partition("  # ")
    head = re.match(r"\s+(?:return|part =) ", code)
    for _, said in OPERATIONS:
        operand = re.fullmatch(said.format(r"(\w+)"), comment)
        if head is not None and operand is not None and (base := _base(code[head.end() :])) is not None:
            operation = next(number for number, (_, words) in enumerate(OPERATIONS) if words == said)
            return Step(head=head[0], base=base, operation=operation, operand=operand[1]).line()
    return None


def _base(expression: str) -> str | None:
    for template, _ in OPERATIONS:
        pattern = re.escape(template).replace(r"\{\}", "(.+)", 1).replace(r"\{\}", r"\w+")
        if found := re.fullmatch(pattern, expression):
            return found[1]
    return None


def write_modules(root: Path, modules: Sequence[SmallModule], sources: Mapping[str, str]) -> None:
    """Write the package ``pkg`` with these modules, a test file for each, and ``check.py``, which runs them.

    Args:
        root: made, or filled where it is empty.
        sources: name of a module -> its text in place of the right one.
    """
    package, tests = root / "pkg", root / "tests"
    package.mkdir(parents=True, exist_ok=True)
    tests.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("")
    (root / "check.py").write_text(CHECK)
    for module in modules:
        (root / module.path).write_text(sources.get(module.name, module.source()))
        (tests / f"test_{module.name}.py").write_text(module.tests())


def write_small_repository(root: Path, *, seed: int, held_out: bool, num_modules: int = 3) -> None:
    """``write_modules`` of a repository without a bug.

    Args:
        seed: the same seed and split give the same bytes.
        held_out: which ``places`` to draw from.
    """
    write_modules(root, small_modules(random.Random(f"{seed}/{held_out}"), held_out=held_out, num=num_modules), {})


def _module(file: str, functions: Sequence[str], rng: random.Random) -> SmallModule:
    heads: list[str] = []
    steps: list[Step] = []
    for function, size in zip(functions, LINES_OF_FUNCTIONS, strict=True):
        arguments = rng.sample(NOUNS, 3 if function == functions[-1] else 2)
        heads.append(f"def {function}({', '.join(arguments)}):")
        bases = [arguments[0], *["part"] * (size - 1)]
        if function == functions[-1]:
            bases = [f"{functions[0]}({arguments[0]}, {arguments[1]})", f"{functions[1]}(part, {arguments[2]})"]
        for number, base in enumerate(bases):
            head = "    return " if number == size - 1 else "    part = "
            operation, operand = _step(base, arguments, rng)
            while any(operation == one.operation and operand == one.operand for one in steps):
                operation, operand = _step(base, arguments, rng)
            steps.append(Step(head=head, base=base, operation=operation, operand=operand))
    return SmallModule(name=file, heads=tuple(heads), steps=tuple(steps))


def _step(base: str, arguments: Sequence[str], rng: random.Random) -> tuple[int, str]:
    """An operation, and what it takes: an argument that ``base`` does not name, or a number."""
    free = [argument for argument in arguments if argument not in re.findall(r"\w+", base)]
    operand = rng.choice(free) if rng.random() < 0.5 else str(rng.randint(2, 9))
    return rng.randrange(NUM_INFIX if "(" in base else len(OPERATIONS)), operand


def _changed(step: Step, kind: str, module: SmallModule, rng: random.Random) -> Step:
    """The step with another operation, or with another operand of the same sort that stands there validly."""
    if kind == "operation":
        most = NUM_INFIX if "(" in step.base else len(OPERATIONS)
        others = [number for number in range(most) if number != step.operation]
        return replace(step, operation=rng.choice(others))
    if step.operand.isdecimal():
        return replace(step, operand=str(rng.choice([n for n in range(2, 10) if n != int(step.operand)])))
    arguments = _arguments_of(module, step)
    return replace(step, operand=rng.choice([one for one in arguments if one != step.operand]))


def _arguments_of(module: SmallModule, step: Step) -> list[str]:
    number, first = module.steps.index(step), 0
    for head, size in zip(module.heads, LINES_OF_FUNCTIONS, strict=True):
        if number < first + size:
            return head.partition("(")[2].removesuffix("):").split(", ")
        first += size
    raise AssertionError("a step is of one of its module's functions")


def _with_calls(module: SmallModule, rng: random.Random) -> SmallModule:
    values = [tuple(rng.sample(range(2, 30), 3)) for _ in range(NUM_CALLS)]
    module = replace(module, calls=tuple((some, 0) for some in values))
    return replace(module, calls=tuple(zip(values, module.results(), strict=True)))
