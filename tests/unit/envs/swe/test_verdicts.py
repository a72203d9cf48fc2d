"""A verdict is had once: by whoever asks first, for all who ask."""

import asyncio

import pytest

from verigym.envs.swe.verdicts import Verdicts


class Grader:
    """Counts what it is asked; it answers when it may."""

    def __init__(self):
        self.num_asked, self.may_answer = 0, asyncio.Event()

    async def __call__(self):
        self.num_asked += 1
        await self.may_answer.wait()
        return self.num_asked


def test_those_who_ask_at_once_wait_for_the_first():
    async def main():
        verdicts, grade = Verdicts(most=9), Grader()
        asking = [asyncio.create_task(verdicts.once(("a",), grade)) for _ in range(8)]
        other = asyncio.create_task(verdicts.once(("b",), grade))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert grade.num_asked == 2
        grade.may_answer.set()
        assert len(set(await asyncio.gather(*asking))) == 1
        await other
        assert (grade.num_asked, len(verdicts)) == (2, 2)
        assert not verdicts._turns.get()

    asyncio.run(main())


@pytest.mark.parametrize("cancelled", [False, True])
def test_where_the_first_fails_the_next_grades(cancelled):
    async def main():
        verdicts, grade = Verdicts(most=9), Grader()

        async def fails():
            await grade.may_answer.wait()
            raise ValueError("the sandbox failed")

        first = asyncio.create_task(verdicts.once(("a",), fails))
        await asyncio.sleep(0)
        second = asyncio.create_task(verdicts.once(("a",), grade))
        await asyncio.sleep(0)
        if cancelled:
            first.cancel()
        grade.may_answer.set()
        with pytest.raises(asyncio.CancelledError if cancelled else ValueError):
            await first
        assert await second == 1
        assert not verdicts._turns.get()

    asyncio.run(main())


def test_the_one_asked_for_least_lately_goes():
    async def main():
        verdicts, asked = Verdicts(most=2), []

        async def ask(key):
            async def grade():
                asked.append(key)
                return key

            return await verdicts.once((key,), grade)

        for key in "abacab":
            assert await ask(key) == key
        assert "".join(asked) == "abcb"
        assert len(verdicts) == 2

    asyncio.run(main())
