"""What copies of the hidden tests note under the reference, and under what else they note something else."""

import ast
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from ...synthesis.probing import file_of
from ..bench import Bench, Files, Manner, Outcome
from ..solutions.variants import Variant, changed_functions, first_line_of, parsed
from .calls import Plan, calling_tests
from .noting import UNTOLD, notes_in
from .snapshots import Snapshot, noting_file, snapshots
from .targets import Target
from .ways import Way

MANNERS = (Manner(), Manner(order="reversed"), Manner(order="notes", env={"PYTHONHASHSEED": "4711"}))
"""Runs under the reference; what is not noted alike in all of them is not used."""

Unit = tuple[str, str, int]
"""(file, name of a copy, -1), or (file, name of a test of calls, number of the call): what is kept or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is tried beyond copies with other literals.

    Attributes:
        targets: functions that are called by themselves.
        ways: in which copies are varied besides.
        plan: how many calls.
        number: of the round; names of copies differ by it.
    """

    targets: Sequence[Target]
    ways: Sequence[Callable[[ast.FunctionDef], Iterator[Way]]]
    plan: Plan
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notebook:
    """Copies of tests, and tests of calls, and what they note.

    Attributes:
        bench: where they run.
        files: the hidden test files with those of which something is stable.
        taken: the copies by file and name.
        stable: test id of a copy -> its notes: the same every time under the reference and its neutral rewrites. Of
            calls those that are not are None; of a copy all are.
    """

    bench: Bench
    files: Files
    taken: Mapping[tuple[str, str], Snapshot]
    stable: Mapping[str, Sequence[str | None]]

    @classmethod
    async def make(
        cls, bench: Bench, gold: Outcome, neutral: Sequence[Variant], *, most: int, search: Search | None = None
    ) -> "Notebook":
        """Copy the tests that come to what the reference changes, and keep what is noted alike every time; in a search
        what the reference notes once, as most of it tells nothing apart: see ``confirmed``."""
        taken = _taken(bench, gold, most, search)
        book = cls(bench=bench, files=_noting_files(bench, taken), taken=taken, stable={})
        (seen,) = await book.notes([{}], MANNERS[0])
        book = book._with(_agreed(book, seen, seen))
        return book if search is not None else await book.confirmed(book.stable, neutral)

    async def confirmed(self, tests: Collection[str], neutral: Sequence[Variant]) -> "Notebook":
        """The notebook with these tests alone, as far as they note the same in other manners and of right solutions."""
        book = self._with({test: notes for test, notes in self.stable.items() if test in tests})
        for manner in MANNERS[1:]:  # one by one: what is slow or fails is not run again
            (seen,) = await book.notes([{}], manner)
            book = book._with(_agreed(book, book.stable, seen))
        for seen in await book.notes([one.files for one in neutral]):
            book = book._with(_agreed(book, book.stable, seen))
        return book

    def _with(self, stable: Mapping[str, Sequence[str | None]]) -> "Notebook":
        """The notebook with what is stable alone."""
        names = {(file_of(test), name_of(test)) for test in stable}
        taken = {key: one for key, one in self.taken.items() if key in names}
        return replace(self, files=_noting_files(self.bench, taken), taken=taken, stable=stable)

    async def notes(self, variants: Sequence[Files], manner: Manner | None = None) -> list[dict[str, list[str]]]:
        """Of each variant: test id of a copy -> its notes."""
        if not self.files:
            return [{} for _ in variants]
        names = sorted({name for _, name in self.taken})
        runs = await self.bench.run_others([{**one, **self.files} for one in variants], self.files, names, manner)
        found = []
        for run in runs:
            told = {test: notes_in(message) for test, message in run.failing.items()}
            found.append({test: json.loads(notes) for test, notes in told.items() if notes is not None})
        return found

    async def tell_apart(self, variants: Sequence[Files]) -> dict[int, str]:
        """Which variants are told from the reference, and by what: number -> one sentence, a plain one if there is."""
        told: dict[int, str] = {}
        for number, seen in enumerate(await self.notes(variants)):
            tests = self.telling(seen)
            found = [self._sentence(test, seen[test], place) for test in tests for place in self._places(test, seen)]
            if found:
                told[number] = next(filter(is_plain, found), found[0])
        return told

    def differing(self, seen: Mapping[str, Sequence[str]]) -> set[Unit]:
        """What noted something else than under the reference; what was not reached in time says nothing."""
        found: set[Unit] = set()
        for test in self.telling(seen):
            path, name = file_of(test), name_of(test)
            calls = self.taken[path, name].calls
            found |= {(path, name, place if calls else -1) for place in self._places(test, seen)}
        return found

    def telling(self, seen: Mapping[str, Sequence[str]]) -> list[str]:
        """The tests in which something else was noted."""
        return [test for test in self.stable if self._places(test, seen)]

    def _places(self, test: str, seen: Mapping[str, Sequence[str]]) -> list[int]:
        if test not in seen:
            return []
        pairs = list(zip_longest(self.stable[test], seen[test], fillvalue="nothing"))
        return [place for place, (mine, other) in enumerate(pairs) if mine is not None and mine != other]

    def _sentence(self, test: str, seen: Sequence[str], place: int) -> str:
        one = self.taken[file_of(test), name_of(test)]
        how = f" with {one.what}" if one.what else ""
        first, second = (
            str(notes[place])[:120] if place < len(notes) else "nothing" for notes in (self.stable[test], seen)
        )
        told = one.calls[place].removeprefix("verigym_notes.") if one.calls else f"{one.test}{how}"
        return f"{told}: the reference gives {first}, this gives {second}"


def is_plain(sentence: str) -> bool:
    """Whether what tells two solutions apart are two results of what anybody may give: no error, nothing that an error
    left out, and no object that was made by its attributes, which may be none that its class makes."""
    return not any(sign in sentence for sign in ("raises ", "gives nothing", "VerigymNotes.made"))


def _taken(bench: Bench, gold: Outcome, most: int, search: Search | None) -> dict[tuple[str, str], Snapshot]:
    wanted, hints, options = concerned(bench, gold), constants_in(bench), options_in(bench)
    taken: dict[tuple[str, str], Snapshot] = {}
    prefix = f"{search.number}_" if search else ""
    for path, tests in wanted.items():
        text = bench.tests.get(path)
        if text is not None and parsed(text) is not None:
            made = snapshots(
                text,
                tests,
                most=max(4, most // len(wanted)),
                seed=f"{bench.row.instance_id}{prefix}",
                hints=hints,
                options=options,
                ways=search.ways if search else (),
                prefix=prefix,
            )
            taken |= {(path, one.name): one for one in made}
    places = [path for path, text in bench.tests.items() if text is not None and parsed(text) is not None]
    if search is not None and search.targets and places:
        made = calling_tests(search.targets, hints, search.plan, prefix=f"{prefix}calls_")
        taken |= {(places[0], one.name): one for one in made}
    return taken


def _noting_files(bench: Bench, taken: Mapping[tuple[str, str], Snapshot]) -> dict[str, str | None]:
    by_path: dict[str, list[Snapshot]] = {}
    for (path, _), one in taken.items():
        by_path.setdefault(path, []).append(one)
    return {path: noting_file(bench.tests[path] or "", made) for path, made in by_path.items()}


def _agreed(
    book: Notebook, stable: Mapping[str, Sequence[str | None]], seen: Mapping[str, Sequence[str]]
) -> dict[str, list[str | None]]:
    """What is noted alike, without what says more of the machine than of the code."""
    found: dict[str, list[str | None]] = {}
    for test, notes in stable.items():
        others = seen.get(test, [])
        if len(others) != len(notes) or not notes:
            continue
        kept = [one if one == other and not _is_untold(one) else None for one, other in zip(notes, others)]
        by_itself = bool(book.taken[file_of(test), name_of(test)].calls)
        if any(one is not None for one in kept) if by_itself else None not in kept:
            found[test] = kept
    return found


def _is_untold(text: str | None) -> bool:
    return text is None or any(one in text for one in UNTOLD)


def name_of(test: str) -> str:
    """The name of a test's function."""
    return test.rsplit("::", 1)[-1].partition("[")[0]


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
