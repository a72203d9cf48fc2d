"""Whatever the batch does to a sequence, its tokens and log-probabilities are those of the sequence alone."""

# pyright: reportArgumentType=false
# Settings of engines are unpacked from tables.

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from verigym.model.chat.sampling import Completion, Sampling
from verigym.model.checkpoint import save_checkpoint
from verigym.model.decoder import Decoder
from verigym.model.engine.generator import Generator
from verigym.model.engine.job import Job
from verigym.model.engine.rows import Rows
from verigym.model.engine.sampler import logits_of
from verigym.model.tokenizer import Tokenizer

from ..conftest import EVERYTHING, small_config
from .conftest import answers, assert_scored, brute_force, prompt_of

NUM_PROMPTS, NUM_NEW, STOP = 200, 16, 319
LENGTHS = (1, 2, 3, 4, 5, 7, 8, 13, 20, 25)


def test_greedy_tokens_of_200_prompts_equal_those_of_transformers(
    decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    save_checkpoint(tmp_path, decoder, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    prompts = [prompt_of(seed, LENGTHS[seed % len(LENGTHS)]) for seed in range(NUM_PROMPTS)]
    expected: dict[tuple[int, ...], list[int]] = {}
    for length in LENGTHS:  # prompts of one length need no padding
        group = [prompt for prompt in prompts if len(prompt) == length]
        ids = torch.tensor(group)
        whole = torch.ones_like(ids)  # without it transformers would take the id 2 in a prompt for padding
        settings = {"do_sample": False, "max_new_tokens": NUM_NEW, "eos_token_id": STOP, "pad_token_id": 2}
        out = theirs.generate(ids, attention_mask=whole, **settings)
        for prompt, row in zip(group, out[:, length:].tolist()):
            end = row.index(STOP) + 1 if STOP in row else NUM_NEW
            expected[tuple(prompt)] = row[:end]
    sampling = Sampling(max_tokens=NUM_NEW, temperature=0.0)
    for order, settings in enumerate(
        (
            {"max_batch": 32},
            {"max_batch": 5, "step_tokens": 7, "page_size": 3},
            {"max_batch": 12, "cache_tokens": 120, "page_size": 4},
        )
    ):
        shuffled = random.Random(order).sample(prompts, NUM_PROMPTS)
        with Generator(decoder, max_context=48, **settings) as engine:
            found = answers(engine, *((prompt, sampling) for prompt in shuffled), stop=[STOP])
            for prompt, completion in zip(shuffled, found):
                assert list(completion.token_ids) == expected[tuple(prompt)]
            assert (engine.stats().num_preemptions > 0) == ("cache_tokens" in settings)


SETTINGS = {
    "chunks": {"step_tokens": 3, "page_size": 4},
    "preemption": {"cache_tokens": 56, "page_size": 4},
    "pages-of-one": {"cache_tokens": 48, "page_size": 1, "step_tokens": 5},
    "pages-of-sixteen": {"page_size": 16, "step_tokens": 2},
}


def test_what_other_families_have_changes_nothing() -> None:
    """Tied embeddings, biases, norms of queries and keys, two rotary bases and a layer with none, GeGLU."""
    decoder = Decoder(small_config(**EVERYTHING), seed=3)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(
                0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            )
    common = prompt_of(5, 14)
    requests = [([*common[: 3 * seed], *prompt_of(seed, 6)], Sampling(max_tokens=14, seed=seed)) for seed in range(5)]
    with Generator(decoder, max_batch=3, max_context=48, cache_tokens=96, page_size=4, step_tokens=7) as engine:
        for (prompt, _), completion in zip(requests, answers(engine, *requests)):
            assert_scored(decoder, prompt, completion, 1.0)


@pytest.mark.parametrize(
    ("settings", "temperature"),
    [  # each setting once; the other temperature is for when there is time
        pytest.param(
            settings, each, id=f"{name}-{each}", marks=() if (at % 2 == 0) == (each == 1.0) else pytest.mark.slow
        )
        for at, (name, settings) in enumerate(SETTINGS.items())
        for each in (1.0, 0.6)
    ],
)
def test_logprobs_equal_a_brute_force_forward(decoder: Decoder, settings: dict[str, int], temperature: float) -> None:
    """Many chunks, pages that run out, prefixes that are shared and extended, windows (of 4) crossed many times."""
    common = prompt_of(99, 18)

    async def episode(engine: Generator, seed: int) -> list[tuple[list[int], Completion]]:
        drawn = np.random.default_rng(seed)
        prompt = [*common[: int(drawn.integers(2, 19))], *prompt_of(seed, int(drawn.integers(1, 9)))]
        turns = []
        for turn in range(2):
            sampling = Sampling(max_tokens=int(drawn.integers(3, 9)), temperature=temperature, seed=100 * seed + turn)
            turns.append((prompt, await engine.generate(prompt, sampling, [])))
            prompt = [*prompt, *turns[-1][1].token_ids, *prompt_of(seed + 50, 1)]
        return turns

    async def main() -> list[list[tuple[list[int], Completion]]]:
        async with Generator(decoder, max_batch=6, max_context=48, **settings) as engine:
            found = await asyncio.gather(*(episode(engine, seed) for seed in range(10)))
            stats = engine.stats()
            assert (stats.num_running, stats.num_waiting, stats.pages_used) == (0, 0, 0)
            assert stats.prompt_tokens_reused > 0
            assert stats.num_preemptions > 0 or "cache_tokens" not in settings
            return found

    for turns in asyncio.run(main()):
        for prompt, completion in turns:
            assert_scored(decoder, prompt, completion, temperature)


def test_a_seed_fixes_the_draw_through_preemption(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    gave_way: list[tuple[int, int]] = []
    take_out = Rows.take_out

    def noting(rows: Rows, row: int) -> Job:
        gave_way.append((int(rows.order[row]), int(rows.order[rows.active].max())))
        return take_out(rows, row)

    monkeypatch.setattr(Rows, "take_out", noting)
    requests = [(prompt_of(seed, 9), Sampling(max_tokens=20, temperature=0.9, seed=seed)) for seed in range(5)]
    with Generator(decoder, max_batch=1, max_context=48) as engine:
        alone = [answers(engine, request)[0] for request in requests]
    with Generator(decoder, max_batch=5, max_context=48, cache_tokens=64, page_size=4) as engine:
        crowded = answers(engine, *requests)
        assert engine.stats().num_preemptions == len(gave_way) > 0
    assert all(order == last for order, last in gave_way)  # who came last, so that the first always comes to its end
    assert [completion.token_ids for completion in crowded] == [completion.token_ids for completion in alone]


def test_a_shared_prompt_is_computed_once(decoder: Decoder) -> None:
    prompt, size = prompt_of(0, 40), 16
    with Generator(decoder, max_batch=size, max_context=64, page_size=16) as engine:
        completions = answers(engine, *((prompt, Sampling(max_tokens=4, seed=seed)) for seed in range(size)))
        stats = engine.stats()
        assert stats.prompt_tokens_computed == len(prompt) + size - 1  # the others feed its last token alone
        assert stats.prompt_tokens_reused == (size - 1) * (len(prompt) - 1)
        # The next turn of each feeds what is new: the last sampled token, and two of the environment's.
        answers(engine, *(([*prompt, *c.token_ids, 7, i], Sampling(max_tokens=1)) for i, c in enumerate(completions)))
        different = len({completion.token_ids for completion in completions})
        new = engine.stats().prompt_tokens_computed - stats.prompt_tokens_computed
        assert 3 * different <= new <= 3 * size
        assert stats.generated_tokens == 4 * size


def test_the_stop_token_is_sampled_and_scored_like_any_other(decoder: Decoder) -> None:
    """At every index, the last included: an error by one would show at each."""
    prompt = prompt_of(3, 12)
    with Generator(decoder, max_batch=2, max_context=48) as engine:
        free = answers(engine, (prompt, Sampling(max_tokens=12, temperature=0.6, seed=1)))[0]
        stop = free.token_ids[7]
        stopped = answers(engine, (prompt, Sampling(max_tokens=12, temperature=0.6, seed=1)), stop=[stop])[0]
    assert stopped.token_ids == free.token_ids[: free.token_ids.index(stop) + 1]
    expected = brute_force(decoder, prompt, stopped.token_ids, 0.6)
    for index, logprob in enumerate(stopped.logprobs):
        assert logprob == pytest.approx(expected[index], abs=1e-5)


def test_logits_are_float32_whatever_the_weights(decoder: Decoder) -> None:
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    exact = hidden.bfloat16().double() @ decoder.head.weight.detach().bfloat16().double().T
    logits = logits_of(decoder.bfloat16(), hidden.bfloat16())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), exact, atol=1e-4, rtol=1e-5)
