"""Which of the copies and calls that tell wrong solutions from the reference become tests, and whether these hold."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ....rewards.swe import PASSING
from ...synthesis.probing import file_of
from ..bench import Bench, Files, Manner
from ..solutions.variants import Variant
from .calls import AT_ONCE, combined
from .notes import Notebook, Unit, name_of
from .snapshots import PREFIX, Snapshot, judging_file

MOST_TESTS, MOST_CALLS = 12, 60
"""Copies, and calls, that are added to a row."""
TRIES = 6
"""Choices that are tried, each without what the ones before have shown to be refused."""
HOLDS = (
    Manner(),
    Manner(order="reversed", env={"PYTHONHASHSEED": "4711"}),
    Manner(order="kept", env={"PYTHONHASHSEED": "2"}, clock_s=40 * 86_400),
)
"""How the reference has to pass what is kept; neutral rewrites pass it as often, as it stands."""

Expected = Mapping[str, Mapping[str, tuple[Snapshot, Sequence[str]]]]
"""File -> name of a test -> (the test, what it may note)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """What tells wrong solutions apart.

    Attributes:
        units: copy or call -> numbers of the wrong solutions under which it notes something else.
        tests: of each the copy, or the test of calls.
        notes: of each what the reference notes; a copy with parameters has several notes.
    """

    units: dict[Unit, set[int]] = field(default_factory=dict)
    tests: dict[Unit, Snapshot] = field(default_factory=dict)
    notes: dict[Unit, list[list[str]]] = field(default_factory=dict)

    def add(self, book: Notebook, number: int, units: Collection[Unit]) -> None:
        for unit in units:
            self.units.setdefault(unit, set()).add(number)
            if unit in self.tests:
                continue
            path, name, place = unit
            self.tests[unit] = book.taken[path, name]
            noted = [
                notes for test, notes in book.stable.items() if (file_of(test), name_of(test)) == (path, name)
            ]  # a copy with parameters has an id for each
            whole = [[one for one in notes if one is not None] for notes in noted]
            self.notes[unit] = [[noted[0][place] or ""]] if place >= 0 else _once(whole)

    def tells(self, number: int) -> bool:
        return any(number in told for told in self.units.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Tests that hold.

    Attributes:
        files: hidden test file -> its text with them; empty where there are none.
        tests: their ids.
        failing: of them those that fail at base.
        killed: numbers of the wrong solutions that they refuse.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    tests: frozenset[str] = frozenset()
    failing: frozenset[str] = frozenset()
    killed: frozenset[int] = frozenset()


def cover(units: Mapping[Unit, Collection[int]], banned: Collection[Unit] = ()) -> list[Unit]:
    """Copies and calls that together tell as many apart as all do, the fewest that a greedy choice finds; of equals a
    call, which is shorter."""
    open_units = {unit: set(told) for unit, told in units.items() if unit not in banned}
    chosen: list[Unit] = []
    left = set().union(*open_units.values()) if open_units else set()
    while left and open_units:
        best = max(sorted(open_units), key=lambda one: (len(open_units[one] & left), one[2] >= 0))
        told = open_units.pop(best)
        is_call = best[2] >= 0
        if sum((one[2] >= 0) == is_call for one in chosen) < (MOST_CALLS if is_call else MOST_TESTS):
            left -= told
            chosen.append(best)
    return chosen


async def keep(bench: Bench, pool: Pool, alive: Sequence[Files], neutral: Sequence[Variant]) -> Kept:
    """Write what was chosen as tests, and keep those that hold: the reference passes them three times, in other orders,
    at another time and with other hashes, with the row's own tests beside them; every neutral rewrite passes them three
    times; and a wrong solution does not."""
    banned: set[Unit] = set()
    for _ in range(TRIES):
        expected, made_of = _expected(pool, cover(pool.units, banned))
        if not expected:
            return Kept()
        files = {path: judging_file(bench.tests[path] or "", tests) for path, tests in expected.items()}
        names = sorted({name for tests in expected.values() for name in tests})
        ran, bad = await _refused(bench, files, names, neutral)
        if bad:
            banned |= {unit for key in bad for unit in made_of[key]}
            continue
        (beside,) = await bench.run([files], Manner(whole=True))
        if not beside.resolved:  # they leave something behind that the row's own tests meet
            banned |= {unit for units in made_of.values() for unit in units if unit[2] < 0} or set(pool.units)
            continue
        runs = await bench.run_others([{**one, **files} for one in alive], files, names)
        killed = {number for number, run in enumerate(runs) if ran - _passing(run.statuses)}
        (base,) = await bench.run_others([{**bench.base, **files}], files, names)
        return Kept(
            files=files,
            tests=frozenset(ran),
            failing=frozenset(ran - _passing(base.statuses)),
            killed=frozenset(killed),
        )
    return Kept()


async def _refused(
    bench: Bench, files: Mapping[str, str], names: Sequence[str], neutral: Sequence[Variant]
) -> tuple[set[str], set[tuple[str, str]]]:
    """(ids of the tests that ran, (file, name) of those that a right solution does not pass, or that did not run)."""
    runs = [run for manner in HOLDS for run in await bench.run_others([dict(files)], files, names, manner)]
    runs += await bench.run_others([{**one.files, **files} for one in neutral] * len(HOLDS), files, names)
    wanted = set(names)
    ran = {test for run in runs for test in run.statuses if name_of(test) in wanted}
    bad = {(file_of(test), name_of(test)) for run in runs for test in ran - _passing(run.statuses)}
    there = {(file_of(test), name_of(test)) for test in ran}
    return ran, bad | {
        (path, name) for path in files for name in names if (path, name) not in there and name in files[path]
    }


def _expected(pool: Pool, chosen: Sequence[Unit]) -> tuple[Expected, dict[tuple[str, str], list[Unit]]]:
    """The tests that are to be, and of each what it is made of. Calls of one function share a test."""
    expected: dict[str, dict[str, tuple[Snapshot, list[str]]]] = {}
    made_of: dict[tuple[str, str], list[Unit]] = {}
    grouped: dict[tuple[str, str], list[Unit]] = {}
    for unit in chosen:
        path, name, place = unit
        if place >= 0:
            grouped.setdefault((path, pool.tests[unit].test), []).append(unit)
            continue
        expected.setdefault(path, {})[name] = (pool.tests[unit], [json.dumps(one) for one in pool.notes[unit]])
        made_of[path, name] = [unit]
    for (path, _), units in grouped.items():
        for start in range(0, len(units), AT_ONCE):
            some = units[start : start + AT_ONCE]
            name = f"{PREFIX}calls_{len(made_of)}"
            lines = [pool.tests[unit].calls[unit[2]] for unit in some]
            notes = [pool.notes[unit][0][0] for unit in some]
            expected.setdefault(path, {})[name] = (combined(name, pool.tests[some[0]], lines), [json.dumps(notes)])
            made_of[path, name] = some
    return expected, made_of


def _once(notes: Sequence[list[str]]) -> list[list[str]]:
    return [one for number, one in enumerate(notes) if one not in notes[:number]]


def _passing(statuses: Mapping[str, str]) -> set[str]:
    return {test for test, status in statuses.items() if status in PASSING}
