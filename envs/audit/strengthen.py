"""Stronger tests for a row: copies of its tests with other arguments, which tell the reference from wrong solutions
that the row's own tests accept. The official verdict stays what it is; the stronger row gives a second one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import TaskError
from ...rewards.patches import paths_of, sections_of
from ...rewards.swe import PASSING
from ..datasets.swe import SWERow
from ..sandbox.types import SandboxBackend
from ..synthesis.probing import file_of
from ..synthesis.rows import git_diff
from .bench import Bench, Files, Manner, open_bench
from .measure import Effort
from .mutants import mutants
from .notes import TIMES, Notebook
from .rewrites import choices, new_names
from .snapshots import Snapshot, judging_file
from .structure import structures
from .variants import Solved, Variant

MOST_TESTS = 12
"""Tests that are added to a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stronger:
    """What came of one row.

    Attributes:
        files: hidden test file -> its text with the further tests; empty where none was found.
        fail_to_pass, pass_to_pass: ids of the further tests.
        num_alive: wrong solutions that the row's own tests accept.
        num_killed: of them, those that the further tests refuse.
        num_neutral: right solutions that accepted all of them, three times.
        test_patch: brings the row's own hidden tests and the further ones.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()
    num_alive: int = 0
    num_killed: int = 0
    num_neutral: int = 0
    test_patch: str = ""

    def row(self, raw: Mapping[str, Any], row: SWERow) -> dict[str, Any]:
        """A raw row with the further tests; ``strengthened`` says what they are worth."""
        told = {
            "tests": [*self.fail_to_pass, *self.pass_to_pass],
            "mutants_accepted_before": self.num_alive,
            "mutants_refused_now": self.num_killed,
        }
        return {
            **raw,
            "test_patch": self.test_patch,
            "FAIL_TO_PASS": json.dumps([*row.FAIL_TO_PASS, *self.fail_to_pass]),
            "PASS_TO_PASS": json.dumps([*row.PASS_TO_PASS, *self.pass_to_pass]),
            "strengthened": told,
        }


async def strengthen(
    backend: SandboxBackend, row: SWERow, effort: Effort | None = None, *, held_out: Sequence[str] = ()
) -> Stronger:
    """Further tests for a row.

    Args:
        held_out: kinds of neutral rewrites that have no say, so that the tests can be tried on them.
    Raises:
        TaskError: nothing can be run, or the reference does not pass. SandboxError: the sandbox failed.
    """
    effort = effort or Effort()
    async with open_bench(backend, row) as bench:
        if not bench.can_vary_runs:
            raise TaskError(f"{row.instance_id}: its tests are run by a script; further tests need pytest's ids")
        (gold,) = await bench.run([{}], Manner(whole=True, trace=True))
        bench.expect(gold)
        if not gold.resolved:
            raise TaskError(f"{row.instance_id}: the reference does not pass; nothing can be told from it")
        neutral = [one for one in await neutral_variants(bench, row) if one.kind not in held_out]
        solved = Solved(base=bench.base, gold=bench.gold, statement=row.problem_statement)
        tried = mutants(solved, most=effort.mutants, seed=row.instance_id, tests=bench.tests)
        outcomes = await bench.run([one.files for one in tried])
        alive = [one.files for one, outcome in zip(tried, outcomes) if outcome.resolved]
        if not alive:
            return Stronger()
        notebook = await Notebook.make(bench, gold, neutral, most=2 * effort.notes)
        chosen = cover([set(notebook.differing(seen)) for seen in await notebook.notes(alive)], notebook)
        return await _kept(bench, notebook, chosen, alive, neutral)


async def neutral_variants(bench: Bench, row: SWERow) -> list[Variant]:
    """Right solutions that the row's own tests accept: other choices and other ways."""
    solved = Solved(base=bench.base, gold=bench.gold, statement=row.problem_statement)
    known = await bench.standing(new_names(solved))
    solved = Solved(base=bench.base, gold=bench.gold, statement=row.problem_statement, known=frozenset(known))
    made = [*(one.variant for one in choices(solved)), *structures(solved)]
    outcomes = await bench.run([one.files for one in made])
    return [one for one, outcome in zip(made, outcomes) if outcome.resolved]


def cover(differing: Sequence[set[str]], notebook: Notebook) -> list[str]:
    """Names of copies that together differ under as many variants as any do, the fewest that a greedy choice finds. A
    copy with parameters counts as a whole, and only where all its notes are stable."""
    by_copy: dict[tuple[str, str], set[int]] = {}
    for number, tests in enumerate(differing):
        for test in tests:
            by_copy.setdefault((file_of(test), notebook.snapshot_of(test).name), set()).add(number)
    chosen: list[str] = []
    left = set().union(*by_copy.values()) if by_copy else set()
    while left and len(chosen) < MOST_TESTS:
        best = max(sorted(by_copy), key=lambda one: len(by_copy[one] & left))
        left -= by_copy.pop(best)
        chosen.append(f"{best[0]}::{best[1]}")
    return chosen


async def _kept(
    bench: Bench, notebook: Notebook, chosen: Sequence[str], alive: Sequence[Files], neutral: Sequence[Variant]
) -> Stronger:
    """Write the chosen copies as tests, and keep those that hold: the reference and every neutral rewrite pass them,
    three times, and a wrong solution does not."""
    expected = _expected(notebook, chosen)
    while True:
        files = {path: judging_file(bench.tests[path] or "", copies) for path, copies in expected.items() if copies}
        names = sorted({name for copies in expected.values() for name in copies})
        if not names:
            return Stronger(num_alive=len(alive))
        right = [{**one, **files} for one in ({}, *(one.files for one in neutral))] * TIMES
        runs = await bench.run_others(right, files, names)
        refused = {test for run in runs for test in names_of(run.statuses, names) - passing(run.statuses)}
        ran = set().union(*(names_of(run.statuses, names) for run in runs))
        bad = {(file_of(test), test.rsplit("::", 1)[-1].partition("[")[0]) for test in refused}
        bad |= {(path, name) for path, copies in expected.items() for name in copies if not _ran(name, ran)}
        if not bad:
            break
        expected = {
            path: {name: one for name, one in copies.items() if (path, name) not in bad}
            for path, copies in expected.items()
        }
    killed = [
        run
        for run in await bench.run_others([{**one, **files} for one in alive], files, names)
        if _refuses(run.statuses, ran)
    ]
    (base,) = await bench.run_others([{**bench.base, **files}], files, names)
    failing = tuple(sorted(test for test in ran if base.statuses.get(test) not in PASSING))
    return Stronger(
        files=files,
        fail_to_pass=failing,
        pass_to_pass=tuple(sorted(ran - set(failing))),
        num_alive=len(alive),
        num_killed=len(killed),
        num_neutral=len(neutral),
        test_patch=_with_files(bench, files),
    )


def _expected(notebook: Notebook, chosen: Sequence[str]) -> dict[str, dict[str, tuple[Snapshot, list[str]]]]:
    """File -> name of a copy -> (the copy, what it may note)."""
    expected: dict[str, dict[str, tuple[Snapshot, list[str]]]] = {}
    for test, notes in notebook.stable.items():
        path, one = file_of(test), notebook.snapshot_of(test)
        if f"{path}::{one.name}" in chosen:
            held = expected.setdefault(path, {}).setdefault(one.name, (one, []))[1]
            if notes not in held:
                held.append(notes)
    return expected


def names_of(statuses: Mapping[str, str], names: Sequence[str]) -> set[str]:
    """Ids of a run's tests that have one of these names."""
    wanted = set(names)
    return {test for test in statuses if test.rsplit("::", 1)[-1].partition("[")[0] in wanted}


def passing(statuses: Mapping[str, str]) -> set[str]:
    return {test for test, status in statuses.items() if status in PASSING}


def _ran(name: str, tests: set[str]) -> bool:
    return any(test.rsplit("::", 1)[-1].partition("[")[0] == name for test in tests)


def _refuses(statuses: Mapping[str, str], tests: set[str]) -> bool:
    return any(statuses.get(test) not in PASSING for test in tests)


def _with_files(bench: Bench, files: Mapping[str, str]) -> str:
    """The row's test patch with other texts of some files."""
    others = [
        section
        for section in sections_of(bench.row.test_patch)
        if not any(new in files or old in files for old, new in paths_of(section))
    ]
    before = {path: bench.tests_before.get(path) or "" for path in files}
    made = [path for path in files if bench.tests_before.get(path) is None]
    patch = git_diff(before, files)
    for path in made:  # git has to make the file, not find an empty one
        patch = patch.replace(f"--- a/{path}\n", "--- /dev/null\n").replace(
            f"diff --git a/{path} b/{path}\n", f"diff --git a/{path} b/{path}\nnew file mode 100644\n"
        )
    return "".join([*others, patch])
