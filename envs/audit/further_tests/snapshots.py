"""Tests that note what they see instead of judging it, with the arguments of the hidden tests and others near them.

A hidden test is copied; what it compares is noted, literals that it passes are varied, and the copy ends by failing
with its notes as the message. What it notes under the reference, three times and under every neutral rewrite alike, is
what a further test may ask for; where it notes something else under a mutant, the mutant is no solution.
"""

import ast
import copy
import json
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, zip_longest
from types import MappingProxyType
from typing import Any

from ..solutions.variants import parsed
from .noting import HELPER, called, expected_in, noting
from .values import Hints, hinted, near
from .ways import Way

PREFIX = "test_varied_"
MOST_OTHERS = 4
"""Other literals of the same test that take a literal's place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A copy of a test.

    Attributes:
        name: of the copy.
        test: the function that it was copied from, dotted.
        what: the literal that was varied, as "old -> new"; "" where none was.
        node: the copy, which ends by telling its notes.
        calls: of a test that is no copy but calls by itself: a statement for each note; they do not hang together.
        start: the statement before them.
    """

    name: str
    test: str
    what: str
    node: ast.FunctionDef
    calls: tuple[str, ...] = ()
    start: str = ""


def snapshots(
    text: str,
    tests: Collection[str],
    *,
    most: int,
    seed: str,
    hints: Hints = (),
    options: Mapping[str, Sequence[tuple[str, Any]]] = MappingProxyType({}),
    ways: Sequence[Callable[[ast.FunctionDef], Iterator[Way]]] = (),
    prefix: str = "",
) -> list[Snapshot]:
    """Copies of some tests of a file.

    Args:
        tests: dotted names of functions ("TestA.test_b").
        hints: numbers and texts of the code under test: at them it may turn.
        options: name of a function under test -> its parameters with defaults: calls that leave them out give them.
        most: copies of all tests together; each test gets its share, the copy as it is among them.
        ways: of varying more than literals; they take turns with these, and some copies are varied twice.
        prefix: of the copies' names, so that they differ from those made before.
    """
    tree = parsed(text)
    if tree is None:
        return []
    found: list[Snapshot] = []
    nodes = [(name, node) for name, node in _tests(tree) if name in tests]
    share = max(2, most // max(1, len(nodes)))
    for number, (name, node) in enumerate(nodes):
        rng = random.Random(f"{seed}/{name}")
        kept = [("", node), *_chosen(node, rng, hints, options, ways, most=share - 1)]
        for index, (what, varied) in enumerate(kept):
            copied = noting(varied)
            copied.name = f"{PREFIX}{prefix}{number}_{index}"
            found.append(Snapshot(name=copied.name, test=name, what=what, node=copied))
    return found[:most]


def _chosen(
    node: ast.FunctionDef,
    rng: random.Random,
    hints: Hints,
    options: Mapping[str, Sequence[tuple[str, Any]]],
    ways: Sequence[Callable[[ast.FunctionDef], Iterator[Way]]],
    *,
    most: int,
) -> list[tuple[str, ast.FunctionDef]]:
    """Variations of a test; what no test gives at all comes first: it is what a test that looks away from it would not
    notice."""
    kinds = [list(_variations(node, hints)), *(list(way(node)) for way in ways)]
    for one in kinds:
        rng.shuffle(one)
    turns = [found for row in zip_longest(*kinds) for found in row if found is not None]
    chosen = list(islice(given_options(node, options), most))
    chosen += [make() for make in turns[: most - len(chosen)]]
    for number in range(len(chosen) // 3 if ways else 0):  # a third is varied once more
        what, varied = chosen[-1 - number]
        again = [one for kind in (lambda other: _variations(other, hints), *ways) for one in kind(varied)]
        if again:
            further, twice = rng.choice(again)()
            chosen[-1 - number] = (f"{what}, {further}", twice)
    return chosen


def noting_file(text: str, taken: Collection[Snapshot]) -> str:
    """A test file with its copies beside the tests: run, each fails with its notes."""
    return _with_copies(text, taken, lambda one: one.node)


def judging_file(text: str, expected: Mapping[str, tuple[Snapshot, Sequence[str]]]) -> str:
    """A test file with copies that judge.

    Args:
        expected: name of a copy -> (the copy, its notes under the reference; of a test with parameters, of each).
    """

    def judge(one: Snapshot) -> ast.FunctionDef:
        node = copy.deepcopy(one.node)
        notes = [json.loads(text) for text in expected[one.name][1]]
        told = f"== {notes[0]!r}" if len(notes) == 1 else f"in {notes!r}"
        node.body[-1] = ast.parse(f"assert verigym_notes {told}").body[0]
        if isinstance(node.body[0], ast.Assign) and one.what:
            node.body.insert(0, ast.Expr(ast.Constant(f"As {one.test}, with {one.what}.")))
        return node

    return _with_copies(text, [one for one, _ in expected.values()], judge)


def _with_copies(text: str, taken: Collection[Snapshot], made: Callable[[Snapshot], ast.FunctionDef]) -> str:
    """Module-level copies at the end; those of methods in a class beside the one that they come from."""
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    tree = parsed(text)
    assert tree is not None
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    inserted: dict[int, list[str]] = {}
    for one in taken:
        owner = classes.get(one.test.split(".")[0]) if "." in one.test else None
        source = ast.unparse(ast.fix_missing_locations(made(one)))
        if owner is None:
            inserted.setdefault(len(lines), []).append(f"\n\n{source}\n")
            continue
        assert owner.end_lineno is not None
        indent = " " * owner.body[0].col_offset
        body = "".join(f"{indent}{line}\n" if line.strip() else "\n" for line in source.splitlines())
        inserted.setdefault(owner.end_lineno, []).append(f"\n{body}")
    result = [*lines]
    for at in sorted(inserted, reverse=True):
        result[at:at] = inserted[at]
    return "".join(result) + HELPER


def _tests(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for child in node.body:
                if isinstance(child, ast.FunctionDef):
                    yield f"{node.name}.{child.name}", child


def _variations(node: ast.FunctionDef, hints: Hints) -> Iterator[Way]:
    """The test with one literal otherwise: of its body, and of what its decorators give it."""
    own = [one.value for one in _literals(node)]
    for position, constant in enumerate(_literals(node)):
        others = [one for one in dict.fromkeys(own) if type(one) is type(constant.value) and one != constant.value]
        values = [*near(constant.value), *hinted(constant.value, hints), *others[:MOST_OTHERS]]
        for value in dict.fromkeys(values):
            yield partial(_with_literal, node, position, value)


def _with_literal(node: ast.FunctionDef, position: int, value: Any) -> tuple[str, ast.FunctionDef]:
    changed = copy.deepcopy(node)
    target = list(_literals(changed))[position]
    was, target.value = target.value, value
    return f"{was!r} -> {value!r}"[:120], changed


def given_options(
    node: ast.FunctionDef, options: Mapping[str, Sequence[tuple[str, Any]]]
) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The test with one more argument in each call of a function that leaves a parameter with a default out."""
    for name, parameters in options.items():
        for parameter, default in parameters:
            for value in near(default) if default is not None else (True, 0, 1, 3, "", "a"):
                changed = copy.deepcopy(node)
                count = 0
                for one in (part for part in ast.walk(changed) if isinstance(part, ast.Call)):
                    given = {keyword.arg for keyword in one.keywords}
                    if called(one) == name and parameter not in given and None not in given:
                        one.keywords.append(ast.keyword(arg=parameter, value=ast.Constant(value)))
                        count += 1
                if count:
                    yield f"{name}(..., {parameter}={value!r})"[:120], changed


def _literals(node: ast.FunctionDef) -> Iterator[ast.Constant]:
    """Numbers and texts that a test uses, in order; not what it says of itself or of its failures."""
    spared = expected_in(node)
    for one in ast.walk(node):
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant):
            spared.add(id(one.value))
        elif isinstance(one, ast.JoinedStr):
            spared |= {id(part) for part in ast.walk(one)}
        elif isinstance(one, ast.Assert) and one.msg is not None:
            spared |= {id(part) for part in ast.walk(one.msg)}
        elif called(one) == "parametrize" and isinstance(one, ast.Call):
            spared |= {id(part) for argument in one.args[:1] for part in ast.walk(argument)}
            spared |= {id(part) for keyword in one.keywords for part in ast.walk(keyword)}
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and id(one) not in spared and type(one.value) in (int, float, str, bool):
            yield one
