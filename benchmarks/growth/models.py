"""The tiny model: tokens by batch and by context, and a server with many clients."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import torch

from verigym.agent.remote_engine import RemoteEngine
from verigym.model.chat.sampling import Sampling
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.engine.generator import Generator
from verigym.model.server.process import ServerProcess
from verigym.model.tokenizer import train_tokenizer
from verigym.model.trained import save_trained

from .harness import Subject, Work

_TOKENS = 32
"""Sampled by each request."""


def _sampled(size: int, count: int, prompt: int) -> Work:
    torch.set_num_threads(1)
    decoder = Decoder(preset("cwm-tiny", max_position_embeddings=1 << 18), seed=0)
    engine = Generator(decoder, max_batch=min(size, 128), max_context=prompt + _TOKENS + 64)

    async def every() -> str:
        started = time.perf_counter()
        prompts = [[7 + (place * number) % 200 for place in range(1, prompt + 1)] for number in range(1, count + 1)]
        requests = (engine.generate(ids, Sampling(max_tokens=_TOKENS, seed=1), ()) for ids in prompts)
        answers = await asyncio.gather(*requests)
        seconds = time.perf_counter() - started
        sampled = sum(len(one.token_ids) for one in answers)
        return f"{(sampled + count * prompt) / seconds:.0f} tokens/s by the wall clock, prompts among them"

    def work() -> str:
        try:
            return asyncio.run(every())
        finally:
            engine.close()

    return work


def by_batch(size: int, folder: Path) -> Work:
    """``size`` requests at once, with prompts of 64 tokens."""
    return _sampled(size, size, 64)


def by_context(size: int, folder: Path) -> Work:
    """One request with a prompt of ``size`` tokens."""
    return _sampled(1, 1, size)


def served(size: int, folder: Path) -> Work:
    """``size`` clients with a connection each, one request after another until there were 200."""
    tokenizer = train_tokenizer(["one two three"] * 3, 300)
    decoder = Decoder(preset("cwm-tiny", vocab_size=tokenizer.vocab_size), seed=0)
    save_trained(folder / "model", decoder, tokenizer)

    async def client(url: str, wanted: Callable[[], bool]) -> None:
        engine = await RemoteEngine.connect(url, None)
        try:
            while wanted():
                await engine.generate([7, 8, 9], Sampling(max_tokens=8, seed=1), ())
        finally:
            await engine.aclose()

    async def every() -> str:
        server = ServerProcess(
            folder / "model", log=folder / "log", options=("--threads", "1", "--logprobs-mode", "processed_logprobs")
        )
        try:
            url = await server.url(600)
            left = iter(range(4 * size))
            started = time.perf_counter()
            work: list[Awaitable[None]] = [client(url, lambda: next(left, None) is not None) for _ in range(size)]
            await asyncio.gather(*work)
            return f"{4 * size / (time.perf_counter() - started):.0f} requests/s"
        finally:
            await server.aclose()

    return lambda: asyncio.run(every())


SUBJECTS = {
    "requests at once": Subject(make=by_batch, sizes=(2, 8, 32, 128), quick=(1, 4, 16, 64), unit="requests"),
    "context": Subject(
        make=by_context, sizes=(2_048, 8_192, 32_768, 131_000), quick=(128, 512, 2_048, 8_192), unit="tokens"
    ),
    "server, four requests a client": Subject(make=served, sizes=(3, 12, 50, 200), quick=(2, 4, 8, 16), unit="clients"),
}
