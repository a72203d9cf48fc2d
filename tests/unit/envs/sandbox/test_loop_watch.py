"""A loop that stands is counted, with the code over which it does."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from verigym.envs.sandbox import loop_watch
from verigym.envs.sandbox.loop_watch import LoopWatch, stacks_of_tasks


def test_what_keeps_the_loop_is_counted_and_named(monkeypatch):
    looked, place_of = threading.Event(), loop_watch._place_of
    monkeypatch.setattr(loop_watch, "HELD_S", 0.001)
    monkeypatch.setattr(loop_watch, "_place_of", lambda thread: (place_of(thread), looked.set())[0])

    def keeps():
        assert looked.wait(60)

    async def episode():
        with LoopWatch() as watch:
            watch.take()
            looked.clear()
            keeps()
            while not watch.peek().count:
                await asyncio.sleep(0.001)
            return watch.take(), watch.peek()

    held, after = asyncio.run(episode())
    assert any("keeps" in place or "wait" in place for place in held.places)
    assert held.count >= 1
    assert held.longest_s > 0
    assert after is not held
    assert held.metrics()["rollout/loop_held/count"] == held.count


def test_one_callback_keeps_the_loop_and_many_that_take_their_turns_do_not(monkeypatch):
    now, frame = [0.0], [object()]
    monkeypatch.setattr(loop_watch, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(loop_watch._Running, "_callback", lambda self: frame[0])
    monkeypatch.setattr(loop_watch, "_place_of", lambda thread: "here")
    running = loop_watch._Running(0, None)
    for _ in range(100):
        now[0] += 0.04
        frame[0] = object()
        assert running.look() is None
    now[0] += 0.06
    assert running.look() is None  # it goes on
    now[0] += 0.01
    frame[0] = object()
    assert running.look() == ("here", pytest.approx(0.07), 0.0)
    now[0] += 0.06
    assert running.look() is None
    assert running.end() == ("here", pytest.approx(0.06), 0.0)


def test_a_callback_is_told_from_the_next():
    """The same code, called twice, is two callbacks."""
    running = []

    async def main():
        loop, here = asyncio.get_running_loop(), threading.get_ident()
        for _ in range(2):
            loop.call_soon(lambda: running.append(loop_watch._Running(here, None)._frame))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    first, second = running
    assert first is not None
    assert first is not second


def test_a_loop_that_others_come_to_is_not_counted(monkeypatch):
    monkeypatch.setattr(loop_watch, "HELD_S", 600.0)

    async def episode():
        with LoopWatch() as watch:
            for _ in range(20):
                await asyncio.sleep(0.005)
            return watch.peek().count

    assert asyncio.run(episode()) == 0


def test_where_tasks_wait_is_told():
    async def waits_here():
        await asyncio.Event().wait()

    async def main():
        task = asyncio.create_task(waits_here(), name="episode-7")
        await asyncio.sleep(0)
        told = stacks_of_tasks()
        task.cancel()
        return told

    told = asyncio.run(main())
    assert "episode-7" in told
    assert "waits_here" in told
