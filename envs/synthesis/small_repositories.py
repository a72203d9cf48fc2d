"""Small repositories with pytest suites: the quickstart's raw material, written to disk and then broken by the same
operators as any other code.

Every line of a function says in a comment what it computes, so a bug can be found by reading. Functions are named by
pairs of words, and so are files; the pairs of the held-out repositories never occur in the training ones.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NOUNS = (
    "price", "count", "weight", "speed", "height", "volume", "score", "length", "rate", "stock", "debt", "power",
    "width", "depth", "heat", "load", "gain", "cost", "limit", "total",
)  # fmt: skip
ADJECTIVES = (
    "net", "gross", "late", "early", "local", "daily", "basic", "final", "extra", "fixed", "spare", "minor",
    "upper", "lower", "outer", "inner",
)  # fmt: skip
COLOURS = (
    "amber", "azure", "black", "blue", "brown", "coral", "green", "grey", "ivory", "jade", "olive", "pink",
    "plum", "red", "ruby", "white",
)  # fmt: skip
ANIMALS = (
    "bear", "bee", "boar", "crow", "deer", "dove", "duck", "fox", "frog", "goat", "hare", "hawk",
    "lynx", "mole", "moth", "newt", "otter", "owl", "seal", "wolf",
)  # fmt: skip
OPERATIONS = (("+", "add"), ("-", "subtract"), ("*", "times"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallFunction:
    """A function of two steps: its name, its source text, and one call with its value."""

    name: str
    source: str
    call: str
    value: int


def write_small_repository(root: Path, *, seed: int, held_out: bool, num_modules: int = 3) -> None:
    """Write a package ``pkg`` with one function in each module, and a test file for every module.

    Args:
        root: made, or filled where it is empty.
        seed: the same seed and split give the same bytes.
        held_out: which part of the names to draw from; the two share no function and no file name.
    """
    rng = random.Random(f"{seed}/{held_out}")
    names, modules = _names(ADJECTIVES, NOUNS, held_out), _names(COLOURS, ANIMALS, held_out)
    rng.shuffle(names)
    package, tests = root / "pkg", root / "tests"
    package.mkdir(parents=True, exist_ok=True)
    tests.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("")
    for module in rng.sample(modules, num_modules):
        function = _small_function(names.pop(), rng)
        (package / f"{module}.py").write_text(function.source)
        (tests / f"test_{module}.py").write_text(
            f"from pkg.{module} import {function.name}\n\n\n"
            f"def test_{function.name}():\n    assert {function.call} == {function.value}\n"
        )


def _names(firsts: Sequence[str], seconds: Sequence[str], held_out: bool) -> list[str]:
    """All pairs of one split: a pair belongs to the held-out part by its place in the table, every fourth one."""
    pairs = [(a, b) for a in range(len(firsts)) for b in range(len(seconds))]
    return [f"{firsts[a]}_{seconds[b]}" for a, b in pairs if ((a + b) % 4 == 0) is held_out]


def _small_function(name: str, rng: random.Random) -> SmallFunction:
    first, second, third = rng.sample(NOUNS, 3)
    (sign_1, word_1), (sign_2, word_2) = rng.choice(OPERATIONS), rng.choice(OPERATIONS)
    source = (
        f"def {name}({first}, {second}, {third}):\n"
        f"    part = {first} {sign_1} {second}  # {word_1} {second}\n"
        f"    return part {sign_2} {third}  # {word_2} {third}\n"
    )
    values = rng.sample(range(3, 10), 3)
    scope: dict[str, int] = dict(zip((first, second, third), values))
    part = _apply(sign_1, scope[first], scope[second])
    return SmallFunction(
        name=name,
        source=source,
        call=f"{name}({', '.join(map(str, values))})",
        value=_apply(sign_2, part, scope[third]),
    )


def _apply(sign: str, left: int, right: int) -> int:
    return {"+": left + right, "-": left - right, "*": left * right}[sign]
