"""Bugs side by side: in order, and no more than are wanted."""

import asyncio
import math
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from verigym.envs.synthesis.examine import Seen
from verigym.envs.synthesis.trying import Trial, Trials

BUGS = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 3), st.integers(0, 3)), max_size=30)
"""Whether tests see it, whether its row holds, and how many turns of the loop each takes to be known."""


def seen(number: int) -> Seen:
    where: Any = SimpleNamespace(number=number)
    return Seen(candidate=where, buggy="", hidden={}, fail_to_pass=(), patch="", statement="")


class Work:
    """Stands for sandboxes; counts those at work at once."""

    def __init__(self, bugs: list[tuple[bool, bool, int, int]]) -> None:
        self.bugs, self.busy, self.most, self.begun = bugs, 0, 0, 0

    async def _for(self, turns: int) -> None:
        self.busy += 1
        self.most = max(self.most, self.busy)
        for _ in range(turns):
            await asyncio.sleep(0)
        self.busy -= 1

    async def find(self, chunk: Any) -> list[Seen | str]:
        await self._for(sum(self.bugs[number][2] for number in chunk))
        return [seen(number) if self.bugs[number][0] else "no test fails" for number in chunk]

    async def finish(self, one: Seen, slots: asyncio.Semaphore) -> dict[str, Any] | str:
        number = one.candidate.number  # type: ignore[attr-defined]  # of the stand-in
        self.begun += 1
        async with slots:
            await self._for(self.bugs[number][3])
        return {"number": number} if self.bugs[number][1] else "the gold patch got 0"


def rows_of(work: Work, *, limit: int, workers: int, size: int) -> tuple[list[int], list[Trial]]:
    async def run() -> tuple[list[int], list[Trial]]:
        numbers: Any = list(range(len(work.bugs)))
        chunks = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        trials, rows, told = Trials(chunks, work.find, work.finish, workers=workers), list[int](), list[Trial]()
        outcomes = trials.outcomes(lambda: limit - len(rows), lambda: math.inf)
        async for trial in outcomes:
            told.append(trial)
            if isinstance(trial.made, dict):
                rows.append(trial.made["number"])
            if len(rows) == limit:
                break
        await outcomes.aclose()
        return rows, told

    return asyncio.run(run())


@given(bugs=BUGS, limit=st.integers(1, 5), workers=st.integers(1, 3), size=st.integers(1, 4))
def test_the_rows_are_the_first_that_hold_whatever_takes_how_long(bugs, limit, workers, size):
    work = Work(bugs)
    rows, told = rows_of(work, limit=limit, workers=workers, size=size)
    assert rows == [number for number, bug in enumerate(bugs) if bug[0] and bug[1]][:limit]
    assert [trial.candidate for trial in told] == list(range(len(told)))  # none is left out
    assert work.most <= workers
    assert work.busy == 0 or len(rows) == limit


def test_no_row_is_made_in_vain_where_all_hold():
    work = Work([(True, True, 1, 1)] * 20)
    rows, _ = rows_of(work, limit=2, workers=1, size=4)
    assert (rows, work.begun) == ([0, 1], 2)
