"""A loop that stands is counted, with the code over which it does."""

import asyncio
import threading

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
