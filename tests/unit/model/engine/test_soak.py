"""Two thousand requests of all lengths, a third of them cancelled, on far too few pages."""

import asyncio
import random
import threading

import pytest

from verigym.model.chat.sampling import Completion, Sampling
from verigym.model.decoder import Decoder
from verigym.model.engine.generator import Generator

from .conftest import assert_scored, prompt_of


def _resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


async def _soak(decoder: Decoder, num_requests: int) -> None:
    rng = random.Random(0)
    common = prompt_of(1000, 120)
    engine = Generator(
        decoder, max_batch=16, max_context=200, cache_tokens=640, page_size=8, step_tokens=64, max_waiting=64
    )
    finished: list[tuple[list[int], Completion]] = []
    memory: list[float] = []

    async def request(index: int) -> bool:
        """Whether it was cancelled."""
        prompt = [*common[: rng.choice((0, 3, 40, 120))], *prompt_of(index, rng.randint(1, 40))]
        sampling = Sampling(max_tokens=rng.choice((1, 5, 20, 40)), temperature=0.6, seed=index)
        answer = asyncio.create_task(engine.generate(prompt, sampling, [7]))
        if rng.random() < 1 / 3:
            await asyncio.sleep(rng.random() * 0.05)
            answer.cancel()
        try:
            finished.append((prompt, await answer))
        except asyncio.CancelledError:
            return True
        return False

    async def caller(indices: range) -> int:
        return sum([await request(index) for index in indices])

    async with engine:
        num_cancelled = 0
        for start in range(0, num_requests, num_requests // 4):
            part = range(start, start + num_requests // 4)
            num_cancelled += sum(await asyncio.gather(*(caller(part[offset::40]) for offset in range(40))))
            memory.append(_resident_mib())
        stats = engine.stats()
        with engine.paused():
            engine._batch.check()
        assert len(finished) + num_cancelled == num_requests
        assert num_cancelled > num_requests / 6
        assert (stats.num_running, stats.num_waiting, stats.pages_used) == (0, 0, 0)
        assert stats.num_preemptions > 0
        assert stats.pages_cached > 0
        engine.forget_prefixes()
        stats = engine.stats()
        assert (stats.pages_used, stats.pages_cached) == (0, 0)
        assert stats.pages_free == 2 * 640 // 8
        assert memory[-1] - memory[0] < 30, f"resident MiB after each quarter: {memory}"
    for prompt, completion in finished[:: max(1, len(finished) // 25)]:
        # Contexts of up to 160 tokens through a decoder that is sharp on purpose: float32 itself is 1e-5 apart there.
        assert_scored(decoder, prompt, completion, 0.6, within=5e-5)
    assert not [thread for thread in threading.enumerate() if thread.name == "verigym-engine"]


def test_a_short_soak(decoder: Decoder) -> None:
    asyncio.run(_soak(decoder, 160))


@pytest.mark.slow
def test_a_soak_of_two_thousand_requests(decoder: Decoder) -> None:
    asyncio.run(_soak(decoder, 2000))
