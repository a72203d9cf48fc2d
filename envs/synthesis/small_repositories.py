"""Small repositories: the quickstart's raw material, each with one bug that its report does not name.

A module has three functions, the last of which calls the other two, and four lines, each with a comment that says
what it computes. In a broken module one line contradicts its comment twice, in its operator and in its operand: one
of the two is the bug, in the other the comment went out of date. Reading finds the line; only running the tests tells
which half of it to change. No file of a held-out repository is about a function that the same file of a training one is
about.
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
OPERATORS = {"+": "add", "-": "subtract", "*": "times", "|": "or"}
"""And what a comment says of each."""
WORDS = {word: operator for operator, word in OPERATORS.items()}
LINE = re.compile(
    r"(?P<head>\s+(?:return|part =) .+) (?P<operator>[-+*|]) (?P<operand>\w+)"
    rf"  # (?P<word>{'|'.join(WORDS)}) (?P<said>\w+)"
)
LINES_OF_FUNCTIONS = (1, 1, 2)
NUM_LINES = sum(LINES_OF_FUNCTIONS)
KINDS = ("operator", "operand")
"""What a bug has changed in a line, while the comment is wrong about the other."""
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
    """A line of a function: ``head`` (with what it begins from), an operator and an operand."""

    head: str
    operator: str
    operand: str

    def line(self, said: "Step | None" = None) -> str:
        """The line, under the comment of another step where one is given."""
        said = said or self
        return f"{self.head} {self.operator} {self.operand}  # {OPERATORS[said.operator]} {said.operand}"


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
        return "".join(functions)

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
        kind: of the bug, one of ``KINDS``.
        bug: number of the step that contradicts its comment.
        line: as it stands there.
        repairs: the line with its operator as the comment says, and with its operand so; by kind. One is right.
    """

    module: SmallModule
    kind: str
    bug: int
    line: str
    repairs: Mapping[str, str]

    @property
    def source(self) -> str:
        return self.module.source({self.bug: self.line})

    @property
    def right_source(self) -> str:
        return self.module.source({self.bug: self.repairs[self.kind]})


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
    """The module with a bug in a given step; None where the tests would not tell it.

    Every call fails on the broken module; the first, which the repository's own tests make, fails too where the wrong
    half of the line is changed, or both.
    """
    right = module.steps[bug]
    others = {
        "operator": replace(right, operator=rng.choice([one for one in OPERATORS if one != right.operator])),
        "operand": replace(right, operand=_another_operand(module, bug, rng)),
    }
    stale = "operand" if kind == "operator" else "operator"
    code, comment = others[kind], others[stale]
    line = code.line(replace(comment, **{kind: getattr(right, kind)}))
    repairs = repairs_of(line)
    results = [value for _, value in module.calls]
    if any(found == value for found, value in zip(module.results({bug: line}), results, strict=True)):
        return None
    both = as_said(line)
    if any(module.results({bug: wrong})[0] == results[0] for wrong in (repairs[stale], both) if wrong is not None):
        return None
    return Broken(module=module, kind=kind, bug=bug, line=line, repairs=repairs)


def repairs_of(line: str) -> dict[str, str]:
    """What a line's comment asks for and the line does not do: kind -> the line with that half changed."""
    found = LINE.fullmatch(line)
    if found is None:
        return {}
    step = Step(head=found["head"], operator=found["operator"], operand=found["operand"])
    said = Step(head=found["head"], operator=WORDS[found["word"]], operand=found["said"])
    halves = {kind: replace(step, **{kind: getattr(said, kind)}) for kind in KINDS}
    return {kind: one.line(said) for kind, one in halves.items() if one != step}


def as_said(line: str) -> str | None:
    """A line of a function with all of its code as its comment says; None where it has none, or cannot be read."""
    found = LINE.fullmatch(line)
    if found is None:
        return None
    return Step(head=found["head"], operator=WORDS[found["word"]], operand=found["said"]).line()


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
            head = f"    {'return' if number == size - 1 else 'part ='} {base}"
            free = [argument for argument in arguments if argument not in re.findall(r"\w+", base)]
            operand = rng.choice(free) if rng.random() < 0.5 else str(rng.randint(2, 9))
            steps.append(Step(head=head, operator=rng.choice(list(OPERATORS)), operand=operand))
    return SmallModule(name=file, heads=tuple(heads), steps=tuple(steps))


def _another_operand(module: SmallModule, number: int, rng: random.Random) -> str:
    """Another of the same sort, a number or an argument, which stands there validly."""
    step, first = module.steps[number], 0
    if step.operand.isdecimal():
        return str(rng.choice([number for number in range(2, 10) if number != int(step.operand)]))
    for head, size in zip(module.heads, LINES_OF_FUNCTIONS, strict=True):
        if number < first + size:
            arguments = head.partition("(")[2].removesuffix("):").split(", ")
            return rng.choice([one for one in arguments if one != step.operand])
        first += size
    raise AssertionError("a step is of one of its module's functions")


def _with_calls(module: SmallModule, rng: random.Random) -> SmallModule:
    values = [tuple(rng.sample(range(2, 30), 3)) for _ in range(NUM_CALLS)]
    module = replace(module, calls=tuple((some, 0) for some in values))
    return replace(module, calls=tuple(zip(values, module.results(), strict=True)))
