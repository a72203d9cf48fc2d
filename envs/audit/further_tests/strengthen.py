"""Stronger tests for a row: copies of its tests with other arguments, and calls of what the reference changes, which
tell the reference from wrong solutions that the row's own tests accept. The official verdict stays what it is; the
stronger row gives a second one."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ....errors import TaskError
from ....rewards.patches import paths_of, sections_of
from ...datasets.swe import SWERow
from ...sandbox.types import SandboxBackend
from ...synthesis.diffs import git_diff
from ...synthesis.probing import file_of
from ..bench import Bench, Manner, open_bench
from ..measure import Effort
from ..solutions.mutants import mutants
from ..solutions.rewrites import choices, new_names
from ..solutions.structure import structures
from ..solutions.variants import Solved, Variant
from .calls import learn
from .keeping import Kept, Pool, keep
from .notes import Notebook, name_of
from .searching import concerning, search_of, see, spelled_names
from .targets import targets

ROUNDS = 4
"""Most rounds of a search; after the first only what lies near the wrong solutions that are left is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stronger:
    """What came of one row.

    Attributes:
        kept: the further tests.
        alive: wrong solutions that the row's own tests accept.
        num_neutral: right solutions that accepted all of them, three times.
        spent_s: processor seconds of all runs.
        test_patch: brings the row's own hidden tests and the further ones.
    """

    kept: Kept = field(default_factory=Kept)
    alive: Sequence[Variant] = ()
    num_neutral: int = 0
    spent_s: float = 0.0
    test_patch: str = ""

    @property
    def fail_to_pass(self) -> tuple[str, ...]:
        """Ids of the further tests that fail at base."""
        return tuple(sorted(self.kept.failing))

    @property
    def pass_to_pass(self) -> tuple[str, ...]:
        """Ids of the others."""
        return tuple(sorted(self.kept.tests - self.kept.failing))

    @property
    def num_alive(self) -> int:
        return len(self.alive)

    @property
    def num_killed(self) -> int:
        return len(self.kept.killed)

    @property
    def left(self) -> list[Variant]:
        """Wrong solutions that no further test refuses."""
        return [one for number, one in enumerate(self.alive) if number not in self.kept.killed]

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
        found = targets(bench.base, bench.gold, spelled_names(bench))
        places = tuple(one.place for one in found)
        (gold,) = await bench.run([{}], Manner(whole=True, trace=True, calls=places))
        bench.expect(gold)
        if not gold.resolved:
            raise TaskError(f"{row.instance_id}: the reference does not pass; nothing can be told from it")
        see(found, bench, gold)
        neutral = [one for one in await neutral_variants(bench, row) if one.kind not in held_out]
        solved = Solved(base=bench.base, gold=bench.gold, statement=row.problem_statement)
        tried = mutants(solved, most=effort.mutants, seed=row.instance_id, tests=bench.tests)
        outcomes = await bench.run([one.files for one in tried])
        alive = [one for one, outcome in zip(tried, outcomes) if outcome.resolved]
        if not alive:
            return Stronger(spent_s=bench.spent_s)
        pool = Pool()
        left = list(range(len(alive)))
        for number in range(ROUNDS):
            near = found if number == 0 else concerning(found, bench.gold, [alive[one] for one in left])
            search = search_of(near, row.instance_id, number)
            book = await Notebook.make(bench, gold, neutral, most=2 * effort.notes, search=search)
            learn(found, [(book.taken[file_of(test), name_of(test)], notes) for test, notes in book.stable.items()])
            noted = await book.notes([alive[one].files for one in left])
            book = await book.confirmed({test for seen in noted for test in book.telling(seen)}, neutral)
            for one, seen in zip(left, noted):
                pool.add(book, one, book.differing(seen))
            left = [one for one in left if not pool.tells(one)]
            if not left or bench.spent_s > effort.search_s:
                break
        kept = await keep(bench, pool, [one.files for one in alive], neutral)
        return Stronger(
            kept=kept,
            alive=tuple(alive),
            num_neutral=len(neutral),
            spent_s=bench.spent_s,
            test_patch=_with_files(bench, kept.files),
        )


async def neutral_variants(bench: Bench, row: SWERow) -> list[Variant]:
    """Right solutions that the row's own tests accept: other choices and other ways."""
    solved = Solved(base=bench.base, gold=bench.gold, statement=row.problem_statement)
    known = await bench.standing(new_names(solved))
    solved = Solved(base=bench.base, gold=bench.gold, statement=row.problem_statement, known=frozenset(known))
    made = [*(one.variant for one in choices(solved)), *structures(solved)]
    outcomes = await bench.run([one.files for one in made])
    return [one for one, outcome in zip(made, outcomes) if outcome.resolved]


def _with_files(bench: Bench, files: Mapping[str, str]) -> str:
    """The row's test patch with other texts of some files."""
    others = [
        section
        for section in sections_of(bench.row.test_patch)
        if not any(new in files or old in files for old, new in paths_of(section))
    ]
    before = {path: bench.tests_before.get(path) or "" for path in files}
    made = [path for path in files if bench.tests_before.get(path) is None]
    patch = git_diff(before, files) if files else ""
    for path in made:  # git has to make the file, not find an empty one
        patch = patch.replace(f"--- a/{path}\n", "--- /dev/null\n").replace(
            f"diff --git a/{path} b/{path}\n", f"diff --git a/{path} b/{path}\nnew file mode 100644\n"
        )
    return "".join([*others, patch])
