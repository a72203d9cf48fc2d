"""Small repositories: the quickstart's raw material, each with one bug that neither its report nor its text tells.

A module has eight functions of one line, each with a comment that says what it computes. In a broken module three of
them contradict their comments: one is broken, of the other two the comment went out of date. Reading finds the three;
only running the tests, which name the function that fails, tells which of them to mend. No file of a held-out
repository has a function that the same file of a training one has.
"""

import itertools
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import TaskError
from .small_functions import KINDS, WORDS, Rule, SmallFunction, draw_function, mistaken, with_calls

FILES = (
    "badger", "bear", "beaver", "bison", "boar", "camel", "crow", "deer", "donkey", "dove", "duck", "eagle",
    "falcon", "ferret", "finch", "fox", "frog", "gecko", "goat", "goose", "hare", "hawk", "heron", "horse",
    "lizard", "llama", "lynx", "mole", "moose", "moth", "newt", "otter", "owl", "panda", "pony", "rabbit",
    "raven", "salmon", "seal", "wolf",
)  # fmt: skip
NUM_FUNCTIONS = 8
"""Of a module."""
NUM_STALE = 2
"""Functions of a broken module that do what they should, under a comment that does not say it."""
MAX_ATTEMPTS = 100

CHECK = '''"""Runs the tests, without pytest's start."""

import importlib
import os

failed = []
for file in sorted(os.listdir("tests")):
    if file.startswith("test_"):
        try:
            module = importlib.import_module("tests." + file[:-3])
        except Exception as error:
            failed.append(f"ERROR {file}: {type(error).__name__}")
            continue
        for name in [name for name in vars(module) if name.startswith("test_")]:
            try:
                getattr(module, name)()
            except Exception:
                failed.append(f"def {name[5:]} FAILED")
print("\\n".join(failed) or "all pass")
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallModule:
    """A module as it should be: the name of its file, without the suffix, and its functions in order."""

    name: str
    functions: tuple[SmallFunction, ...]

    @property
    def path(self) -> str:
        return f"pkg/{self.name}.py"

    def source(self, changed: Mapping[int, Rule] | None = None) -> str:
        """The module's text; ``changed`` gives rules by the number of their function."""
        changed = changed or {}
        return "".join(one.source(changed.get(number)) for number, one in enumerate(self.functions))

    def tests(self, thorough: int | None = None) -> str:
        """The text of its test file: a test a function, and of one of them, by its number, a test a call."""
        names = ", ".join(one.name for one in self.functions)
        tests = (one.tests(None if number == thorough else 1) for number, one in enumerate(self.functions))
        return "\n\n".join([f"from pkg.{self.name} import {names}\n", *tests])

    def test_ids(self, thorough: int | None = None) -> list[str]:
        """The tests of ``tests``, as pytest names them."""
        names = [
            name
            for number, one in enumerate(self.functions)
            for name in (one.test_names if number == thorough else one.test_names[:1])
        ]
        return [f"tests/test_{self.name}.py::{name}" for name in names]


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A module with a bug.

    Attributes:
        module: as it should be, comments that are out of date included.
        kind: of the bug, one of ``KINDS``.
        bug: number of the broken function, whose comment is right.
        rule: what that function returns in place of what it should.
    """

    module: SmallModule
    kind: str
    bug: int
    rule: Rule

    @property
    def function(self) -> SmallFunction:
        return self.module.functions[self.bug]

    @property
    def source(self) -> str:
        return self.module.source({self.bug: self.rule})

    def tests(self) -> tuple[list[str], list[str]]:
        """The hidden tests of its file: (those that fail, those that pass)."""
        function, tests = self.function, self.module.test_ids(thorough=self.bug)
        pairs = zip(function.test_names, function.results(), function.results(self.rule), strict=True)
        names = {name for name, right, found in pairs if found != right}
        failing = [test for test in tests if test.partition("::")[2] in names]
        return failing, [test for test in tests if test not in failing]


def places(*, held_out: bool) -> list[tuple[str, str]]:
    """(file, function that may stand in it) of one split; no pair is in both."""
    numbered = enumerate(FILES), enumerate(WORDS)
    pairs = itertools.product(*map(list, numbered))
    return [(file, function) for (a, file), (b, function) in pairs if ((a + b) % 4 == 0) is held_out]


def small_module(file: str, rng: random.Random, *, held_out: bool, taken: Collection[str] = ()) -> SmallModule:
    """A module of this name, of one split, without a bug and with all comments right; ``taken`` names no function."""
    names = rng.sample(_left(file, taken, held_out=held_out), NUM_FUNCTIONS)
    functions = [_function(name, rng) for name in names]
    return SmallModule(name=file, functions=tuple(functions))


def small_modules(
    rng: random.Random, *, held_out: bool, num: int, but: Sequence[SmallModule] = ()
) -> list[SmallModule]:
    """Modules of one split. No two of them, or of ``but``, have the same name, or functions of the same name."""
    found = list(but)
    while len(found) < num + len(but):
        taken = {function.name for module in found for function in module.functions}
        left = [one for one in FILES if len(_left(one, taken, held_out=held_out)) >= NUM_FUNCTIONS]
        left = [one for one in left if one not in {module.name for module in found}]
        found.append(small_module(rng.choice(left), rng, held_out=held_out, taken=taken))
    return found[len(but) :]


def draw_broken(file: str, function: str, rng: random.Random, *, held_out: bool, bug: int, kind: str) -> Broken:
    """A module of this name with a bug in a function of that one, and with stale comments in two others.

    The broken function fails its first call, which the repository's own tests make; together its calls tell it from
    every other line of the same form that behaves otherwise. The first call of a function with a stale comment tells
    what it does from what the comment says.

    Args:
        bug: at which place the function stands.
        kind: of the bug.
    """
    names = rng.sample(_left(file, [function], held_out=held_out), NUM_FUNCTIONS - 1)
    stale = rng.sample(range(NUM_FUNCTIONS - 1), NUM_STALE)
    functions = [
        _stale_function(name, rng) if number in stale else _function(name, rng) for number, name in enumerate(names)
    ]
    broken, rule = _with_mistake(function, rng, kind=kind, thorough=True)
    functions.insert(bug, broken)
    return Broken(module=SmallModule(name=file, functions=tuple(functions)), kind=kind, bug=bug, rule=rule)


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


def _left(file: str, taken: Collection[str], *, held_out: bool) -> list[str]:
    """Functions that a file of a split may have, but for those that are taken."""
    return [function for one, function in places(held_out=held_out) if one == file and function not in taken]


def _function(name: str, rng: random.Random) -> SmallFunction:
    function = with_calls(draw_function(name, rng, kind=rng.choice(KINDS)), None, rng, thorough=False)
    assert function is not None
    return function


def _stale_function(name: str, rng: random.Random) -> SmallFunction:
    """A function that was changed, and its comment was not."""
    function, rule = _with_mistake(name, rng, kind=rng.choice(KINDS), thorough=False)
    return replace(function, said=rule)


def _with_mistake(name: str, rng: random.Random, *, kind: str, thorough: bool) -> tuple[SmallFunction, Rule]:
    """A function, and what a mistake of this kind makes of it, which its first call tells."""
    for _ in range(MAX_ATTEMPTS):
        function = draw_function(name, rng, kind=kind)
        rule = mistaken(function, rng, kind=kind)
        called = with_calls(function, rule, rng, thorough=thorough)
        if called is not None:
            return called, rule
    raise TaskError(f"{MAX_ATTEMPTS} mistakes of kind {kind!r} were told by no call; mend small_functions.py")
