"""Many coroutines at once: all of them, or the first error with none left running."""

import asyncio

import pytest

from verigym.envs.sandbox.background import all_or_first_error, run_sync


async def later(value, seconds, ended):
    try:
        await asyncio.sleep(seconds)
        if isinstance(value, Exception):
            raise value
        return value
    finally:
        await asyncio.sleep(0.01)  # closing takes a while
        ended.append(value)


def test_results_are_in_order():
    ended = []
    some = [later(number, 0.05 - number / 100, ended) for number in range(4)]
    assert asyncio.run(all_or_first_error(some)) == [0, 1, 2, 3]
    assert asyncio.run(all_or_first_error([])) == []


def test_the_first_error_is_raised_when_all_have_ended():
    ended, error = [], KeyError("first")
    with pytest.raises(KeyError, match="first"):
        asyncio.run(all_or_first_error([later(1, 60, ended), later(error, 0, ended), later(2, 60, ended)]))
    assert sorted(map(str, ended)) == sorted(map(str, [error, 1, 2]))


def test_a_cancellation_lets_all_close():
    ended = []

    async def cancelled():
        running = asyncio.create_task(all_or_first_error([later(number, 60, ended) for number in range(3)]))
        await asyncio.sleep(0.02)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert sorted(ended) == [0, 1, 2]

    asyncio.run(cancelled())


def test_the_callers_exception_is_the_coroutines():
    async def fails():
        raise KeyError("here")

    with pytest.raises(KeyError, match="here"):
        run_sync(fails())
