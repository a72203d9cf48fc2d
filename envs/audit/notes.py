"""What copies of the hidden tests note under the reference, and under what else they note something else."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..synthesis.probing import file_of
from .bench import Bench, Files, Outcome
from .snapshots import Snapshot, notes_in, noting_file, snapshots
from .variants import Variant, changed_functions, first_line_of, parsed

TIMES = 3
"""Runs under the reference; what is not noted alike in all of them is not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notebook:
    """Copies of tests, and what they note.

    Attributes:
        bench: where they run.
        files: the hidden test files with the copies.
        taken: the copies by file and name.
        stable: test id of a copy -> its notes: the same every time under the reference and its neutral rewrites.
    """

    bench: Bench
    files: Files
    taken: Mapping[tuple[str, str], Snapshot]
    stable: Mapping[str, str]

    @classmethod
    async def make(cls, bench: Bench, gold: Outcome, neutral: Sequence[Variant], *, most: int) -> "Notebook":
        """Copy the tests that come to what the reference changes, and keep what is noted alike every time."""
        wanted, hints, options = concerned(bench, gold), constants_in(bench), options_in(bench)
        files: dict[str, str | None] = {}
        taken: dict[tuple[str, str], Snapshot] = {}
        for path, tests in wanted.items():
            text = bench.tests.get(path)
            if text is None or parsed(text) is None:
                continue
            share = max(4, most // len(wanted))
            made = snapshots(text, tests, most=share, seed=bench.row.instance_id, hints=hints, options=options)
            if made:
                files[path] = noting_file(text, made)
                taken |= {(path, one.name): one for one in made}
        if not files:
            return cls(bench=bench, files={}, taken={}, stable={})
        book = cls(bench=bench, files=files, taken=taken, stable={})
        seen = await book.notes([{}] * TIMES + [one.files for one in neutral])
        stable = {
            test: notes
            for test, notes in seen[0].items()
            if all(other.get(test) == notes for other in seen) and json.loads(notes)
        }
        return cls(bench=bench, files=files, taken=taken, stable=stable)

    async def notes(self, variants: Sequence[Files]) -> list[dict[str, str]]:
        """Of each variant: test id of a copy -> its notes."""
        if not self.files:
            return [{} for _ in variants]
        names = sorted({name for _, name in self.taken})
        runs = await self.bench.run_others([{**one, **self.files} for one in variants], self.files, names)
        found = []
        for run in runs:
            told = {test: notes_in(message) for test, message in run.failing.items()}
            found.append({test: notes for test, notes in told.items() if notes is not None})
        return found

    async def tell_apart(self, variants: Sequence[Files]) -> dict[int, str]:
        """Which variants are told from the reference, and by what: number -> one sentence."""
        told: dict[int, str] = {}
        for number, seen in enumerate(await self.notes(variants)):
            test = next(iter(self.differing(seen)), None)
            if test is not None:
                told[number] = self._sentence(test, self.stable[test], seen[test])
        return told

    def differing(self, seen: Mapping[str, str]) -> list[str]:
        """Copies that noted something else than under the reference; one that was not reached in time says nothing."""
        return [test for test, notes in self.stable.items() if seen.get(test, notes) != notes]

    def snapshot_of(self, test: str) -> Snapshot:
        """The copy that a test id means."""
        name = test.rsplit("::", 1)[-1].partition("[")[0]
        return self.taken[file_of(test), name]

    def _sentence(self, test: str, notes: str, other: str) -> str:
        one = self.snapshot_of(test)
        how = f" with {one.what}" if one.what else ""
        mine, theirs = json.loads(notes), json.loads(other)
        place = next((n for n, (a, b) in enumerate(zip(mine, theirs)) if a != b), min(len(mine), len(theirs)))
        first, second = (str(one[place])[:120] if place < len(one) else "nothing" for one in (mine, theirs))
        return f"{one.test}{how}: the reference gives {first}, this gives {second}"


def constants_in(bench: Bench) -> list[int | str]:
    """Whole numbers and short texts in the functions that the reference changes."""
    found: set[int | str] = set()
    for path, text in bench.gold.items():
        for node in changed_functions(bench.base.get(path) or "", text).values() if text is not None else ():
            for one in (part for statement in node.body for part in ast.walk(statement)):
                value = one.value if isinstance(one, ast.Constant) else None
                if (type(value) is int and abs(value) < 10**6) or (type(value) is str and len(value) <= 20):
                    found.add(value)
    return sorted(found, key=repr)


def options_in(bench: Bench) -> dict[str, list[tuple[str, Any]]]:
    """Name of a function that the reference changes -> its parameters with plain defaults."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for path, text in bench.gold.items():
        changed = changed_functions(bench.base.get(path) or "", text) if text is not None else {}
        for dotted, node in changed.items():
            owner, _, name = dotted.rpartition(".")
            called = owner.rpartition(".")[2] if name == "__init__" else name
            positional = [*node.args.posonlyargs, *node.args.args]
            with_default = zip(positional[::-1], node.args.defaults[::-1])
            for argument, default in (*with_default, *zip(node.args.kwonlyargs, node.args.kw_defaults)):
                if isinstance(default, ast.Constant) and type(default.value) in (int, float, str, bool, type(None)):
                    found.setdefault(called, []).append((argument.arg, default.value))
    return found


def concerned(bench: Bench, gold: Outcome) -> dict[str, list[str]]:
    """Test file -> dotted names of the deciding tests that come to a function that the reference changes; of files that
    the row's test patch brings. Where nothing was traced, or nothing is in a function, all tests of FAIL_TO_PASS."""
    places = set()
    for path, text in bench.gold.items():
        if text is not None:
            for node in changed_functions(bench.base.get(path) or "", text).values():
                places.add((path, first_line_of(node)))
    found: dict[str, list[str]] = {}
    covered = gold.traced.covered if gold.traced is not None else {}
    for test in bench.row.tests:
        hits = bool(places & set(covered.get(test, ())))
        if file_of(test) in bench.tests and (hits or (not places and test in bench.row.FAIL_TO_PASS)):
            dotted = ".".join(part.partition("[")[0] for part in test.split("::")[1:])
            found.setdefault(file_of(test), []).append(dotted)
    return {path: list(dict.fromkeys(tests)) for path, tests in found.items()}
