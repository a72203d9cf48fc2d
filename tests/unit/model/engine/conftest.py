"""Running an engine, and what its answers must be."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from verigym.model.attention import Documents
from verigym.model.chat.sampling import Completion, Sampling
from verigym.model.decoder import Decoder
from verigym.model.engine import lanes
from verigym.model.engine.generator import Generator
from verigym.model.head import token_logprobs

Asked = tuple[Sequence[int], Sampling]


@pytest.fixture(autouse=True)
def _lanes_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes begin so short that every test has them grow."""
    monkeypatch.setattr(lanes, "_FIRST_LENGTH", 3)


def prompt_of(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, 320, length).tolist()


def answers(engine: Generator, *requests: Asked, stop: Sequence[int] = ()) -> list[Completion]:
    """Of all requests at once."""

    async def together() -> list[Completion]:
        return list(await asyncio.gather(*(engine.generate(ids, sampling, stop) for ids, sampling in requests)))

    return asyncio.run(together())


def brute_force(decoder: Decoder, prompt: Sequence[int], sampled: Sequence[int], temperature: float) -> list[float]:
    """The log-probability of every sampled token from a forward of its whole prefix alone."""
    out = []
    for index, token in enumerate(sampled):
        prefix = torch.tensor([*prompt, *sampled[:index]])
        with torch.no_grad():
            hidden = decoder(prefix, Documents.from_lengths([len(prefix)]))[-1:]
        out.append(float(token_logprobs(hidden, decoder.head.weight.detach(), torch.tensor([token]), temperature)[0]))
    return out


def assert_scored(
    decoder: Decoder, prompt: Sequence[int], completion: Completion, temperature: float, within: float = 1e-5
) -> None:
    expected = brute_force(decoder, prompt, completion.token_ids, temperature)
    assert completion.logprobs == pytest.approx(expected, abs=within)
