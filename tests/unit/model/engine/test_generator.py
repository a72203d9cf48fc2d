import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from verigym.errors import CheckpointError, ConfigError, PolicyError
from verigym.model.attention import Documents
from verigym.model.chat.sampling import Completion, Sampling
from verigym.model.checkpoint import save_checkpoint
from verigym.model.decoder import Decoder
from verigym.model.engine import thread
from verigym.model.engine.generator import Generator
from verigym.model.engine.open import open_checkpoint
from verigym.model.engine.worker import Worker
from verigym.model.tokenizer import Tokenizer

from .conftest import answers, assert_scored, prompt_of

CONTEXT = 48


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_logprobs_equal_a_brute_force_forward(decoder: Decoder, temperature: float) -> None:
    sampling = Sampling(max_tokens=14, temperature=temperature)
    prompts = [prompt_of(seed, length) for seed, length in enumerate([1, 3, 4, 9, 20])]
    with Generator(decoder, max_batch=3, max_context=CONTEXT) as engine:  # fewer slots than requests
        completions = answers(engine, *((prompt, sampling) for prompt in prompts))
    for prompt, completion in zip(prompts, completions):
        assert len(completion.token_ids) == 14
        assert completion.finish_reason == "length"
        assert_scored(decoder, prompt, completion, temperature)


def test_logprobs_hold_over_several_turns_with_reuse(decoder: Decoder) -> None:
    sampling = Sampling(max_tokens=6, temperature=0.6, seed=3)
    with Generator(decoder, max_batch=4, max_context=CONTEXT) as engine:
        prompts = [prompt_of(seed, 5 + seed) for seed in range(3)]
        for turn in range(3):
            completions = answers(engine, *((prompt, sampling) for prompt in prompts))
            for prompt, completion in zip(prompts, completions):
                assert_scored(decoder, prompt, completion, 0.6)
            prompts = [
                [*prompt, *completion.token_ids, *prompt_of(10 * turn + i, 2)]
                for i, (prompt, completion) in enumerate(zip(prompts, completions))
            ]


def test_an_extended_prompt_prefills_only_the_rest(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    forward = Decoder.forward

    def counting(self: Decoder, token_ids: torch.Tensor, *rest: object) -> torch.Tensor:
        fed.append(len(token_ids))
        return forward(self, token_ids, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Decoder, "forward", counting)
    prompt = prompt_of(0, 20)
    with Generator(decoder, max_batch=4, max_context=CONTEXT) as engine:
        first = answers(engine, (prompt, Sampling(max_tokens=3, seed=1)))[0]
        assert fed == [20, 1, 1]
        fed.clear()
        answers(engine, ([*prompt, *first.token_ids, 7, 8], Sampling(max_tokens=1)))
        assert fed == [3]  # the last sampled token, which was never fed, and the two new ones
        fed.clear()
        # Samples of one prompt share its prefill, also with what an older slot still holds.
        answers(engine, *((prompt_of(1, 30), Sampling(max_tokens=1, seed=i)) for i in range(4)))
        assert fed == [30, 3]
        fed.clear()
        engine.update_weights(1)
        answers(engine, (prompt, Sampling(max_tokens=1)))
        assert fed == [20]


def test_logprobs_hold_while_sequences_come_and_go(decoder: Decoder) -> None:
    """Ragged lengths, arrivals and endings: slots are shared, evicted, truncated and moved."""
    random = np.random.default_rng(0)
    common = prompt_of(99, 18)

    async def episode(engine: Generator, seed: int) -> list[tuple[list[int], Completion]]:
        prompt = [*common[: int(random.integers(2, 19))], *prompt_of(seed, int(random.integers(1, 5)))]
        turns = []
        for _ in range(int(random.integers(1, 4))):
            await asyncio.sleep(float(random.random()) * 0.004)
            sampling = Sampling(max_tokens=int(random.integers(1, 8)), temperature=0.6)
            turns.append((prompt, await engine.generate(prompt, sampling, [])))
            prompt = [*prompt, *turns[-1][1].token_ids, *prompt_of(seed + 50, 1)]
        return turns

    async def main() -> list[list[tuple[list[int], Completion]]]:
        async with Generator(decoder, max_batch=6, max_context=CONTEXT) as engine:
            return await asyncio.gather(*(episode(engine, seed) for seed in range(24)))

    for turns in asyncio.run(main()):
        for prompt, completion in turns:
            # Which prompts share a forward depends on the clock, and float32's sums on which do.
            assert_scored(decoder, prompt, completion, 0.6, within=5e-5)


def test_samples_of_one_prompt_differ_and_are_scored(decoder: Decoder) -> None:
    prompt = prompt_of(0, 20)
    with Generator(decoder, max_batch=8, max_context=CONTEXT) as engine:
        completions = answers(engine, *((prompt, Sampling(max_tokens=8, temperature=1.0)) for _ in range(6)))
    assert len({completion.token_ids for completion in completions}) > 1
    for completion in completions:
        assert_scored(decoder, prompt, completion, 1.0)


def test_a_seed_fixes_the_draw_whatever_else_is_in_the_batch(decoder: Decoder) -> None:
    request = (prompt_of(0, 7), Sampling(max_tokens=12, temperature=1.0, seed=5))
    others = [(prompt_of(seed, 3 + seed), Sampling(max_tokens=2 + seed)) for seed in range(1, 6)]
    with Generator(decoder, max_batch=4, max_context=CONTEXT) as engine:
        alone = answers(engine, request)[0]
        crowded = answers(engine, *others[:2], request, *others[2:])[2]
        another = answers(engine, (request[0], Sampling(max_tokens=12, temperature=1.0, seed=6)))[0]
    assert crowded.token_ids == alone.token_ids
    assert crowded.logprobs == pytest.approx(alone.logprobs, abs=1e-5)
    assert another.token_ids != alone.token_ids


def test_greedy_tokens_equal_those_of_transformers(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_checkpoint(tmp_path, decoder, tokenizer)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    engine = open_checkpoint(tmp_path, max_batch=4, max_context=CONTEXT, device="cpu").engine
    assert isinstance(engine, Generator)
    with engine:
        for seed in range(3):
            prompt = prompt_of(seed, 6 + seed)
            expected = theirs.generate(
                torch.tensor([prompt]), do_sample=False, max_new_tokens=16, eos_token_id=319, pad_token_id=2
            )[0, len(prompt) :]
            completion = answers(engine, (prompt, Sampling(max_tokens=16, temperature=0.0)), stop=[319])[0]
            assert list(completion.token_ids) == expected.tolist()
            assert_scored(decoder, prompt, completion, 1.0)


def test_top_k_and_top_p_are_scored_as_drawn(decoder: Decoder) -> None:
    prompt = prompt_of(0, 6)
    with torch.no_grad():
        logits = decoder.logits(decoder(torch.tensor(prompt), Documents.from_lengths([6]))[-1]) / 0.7
    order = logits.argsort(descending=True)
    three = logits[order[:3]].log_softmax(-1)
    cumulative = logits.softmax(-1)[order].cumsum(0)
    nucleus = order[: int((cumulative < 0.5).sum()) + 1]
    with Generator(decoder, max_batch=16, max_context=CONTEXT) as engine:
        top_k = answers(engine, *[(prompt, Sampling(max_tokens=1, temperature=0.7, top_k=3))] * 40)
        top_p = answers(engine, *[(prompt, Sampling(max_tokens=1, temperature=0.7, top_p=0.5))] * 40)
    for row in top_k:
        place = order[:3].tolist().index(row.token_ids[0])
        assert row.logprobs[0] == pytest.approx(float(three[place]), abs=1e-5)
    scores = logits[nucleus].log_softmax(-1)
    for row in top_p:
        place = nucleus.tolist().index(row.token_ids[0])
        assert row.logprobs[0] == pytest.approx(float(scores[place]), abs=1e-5)


def test_the_stop_token_ends_and_is_part_of_the_completion(decoder: Decoder) -> None:
    prompt = prompt_of(0, 6)
    with Generator(decoder, max_batch=2, max_context=CONTEXT) as engine:
        free = answers(engine, (prompt, Sampling(max_tokens=10, seed=0)))[0]
        stop = free.token_ids[4]
        end = free.token_ids.index(stop) + 1
        stops = [9999, 9998, 9997, 9996, stop]  # more than the usual few
        stopped = answers(engine, (prompt, Sampling(max_tokens=10, seed=0)), stop=stops)[0]
    assert stopped.token_ids == free.token_ids[:end]
    assert stopped.finish_reason == "stop"
    assert len(stopped.logprobs) == len(stopped.policy_version) == end


def test_the_context_ends_a_completion(decoder: Decoder) -> None:
    with Generator(decoder, max_batch=2, max_context=12) as engine:
        completion = answers(engine, (prompt_of(0, 11), Sampling(max_tokens=10)))[0]
        assert (len(completion.token_ids), completion.finish_reason) == (1, "length")
        completion = answers(engine, (prompt_of(0, 9), Sampling(max_tokens=10)))[0]
        assert len(completion.token_ids) == 3
        assert_scored(decoder, prompt_of(0, 9), completion, 1.0)


def test_after_new_weights_nothing_of_the_old_is_used(decoder: Decoder) -> None:
    prompt, sampling = prompt_of(0, 16), Sampling(max_tokens=6, seed=0)
    with Generator(decoder, max_batch=2, max_context=CONTEXT) as engine:
        first = answers(engine, (prompt, sampling))[0]
        assert first.policy_version == (0,) * 6
        with torch.no_grad():
            for parameter in decoder.parameters():
                parameter.mul_(1.2)
        engine.update_weights(7)
        assert engine.policy_version == 7
        longer = [*prompt, *first.token_ids]
        second = answers(engine, (longer, sampling))[0]
    assert second.policy_version == (7,) * 6
    assert_scored(decoder, longer, second, 1.0)


def test_weights_do_not_change_under_a_request(decoder: Decoder) -> None:
    async def main() -> None:
        async with Generator(decoder, max_batch=2, max_context=CONTEXT) as engine:
            running = asyncio.create_task(engine.generate(prompt_of(0, 4), Sampling(max_tokens=40), []))
            await asyncio.sleep(0)
            with pytest.raises(PolicyError, match="1 requests are in flight"):
                engine.update_weights(1)
            await running
            engine.update_weights(1)
            # A cancelled request is not in flight.
            cancelled = asyncio.create_task(engine.generate(prompt_of(0, 4), Sampling(max_tokens=40), []))
            await asyncio.sleep(0.01)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            engine.update_weights(2)
            completion = await engine.generate(prompt_of(0, 4), Sampling(max_tokens=5, temperature=0.6), [])
            assert_scored(decoder, prompt_of(0, 4), completion, 0.6)

    asyncio.run(main())


def test_cancelling_frees_the_slot(decoder: Decoder) -> None:
    async def main() -> None:
        async with Generator(decoder, max_batch=1, max_context=200) as engine:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(engine.generate([1], Sampling(max_tokens=199), []), 0.02)
            completion = await asyncio.wait_for(engine.generate([2], Sampling(max_tokens=3), []), 10)
            assert_scored(decoder, [2], completion, 1.0)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("prompt", "message"),
    [([], "empty"), ([1, 320], "id 320"), ([-1, 3], "id -1"), ([1] * CONTEXT, "48 tokens and the context 48")],
)
def test_a_prompt_that_cannot_be_run_is_refused(decoder: Decoder, prompt: list[int], message: str) -> None:
    with Generator(decoder, max_batch=1, max_context=CONTEXT) as engine, pytest.raises(PolicyError, match=message):
        answers(engine, (prompt, Sampling()))


def test_broken_weights_are_a_policy_error(decoder: Decoder) -> None:
    with torch.no_grad():
        decoder.head.weight.fill_(float("nan"))
    with Generator(decoder, max_batch=1, max_context=CONTEXT) as engine, pytest.raises(PolicyError, match="not finite"):
        answers(engine, ([1, 2], Sampling(max_tokens=5)))


def test_closing_leaves_no_thread_and_no_waiting_caller(decoder: Decoder) -> None:
    async def main() -> None:
        async with Generator(decoder, max_batch=1, max_context=CONTEXT) as engine:
            running = [asyncio.create_task(engine.generate([i], Sampling(max_tokens=40), [])) for i in range(3)]
            await asyncio.sleep(0)
        results = await asyncio.gather(*running, return_exceptions=True)
        assert any(isinstance(result, PolicyError) for result in results)
        with pytest.raises(PolicyError, match="closed"):
            await engine.generate([1], Sampling(), [])

    asyncio.run(main())
    assert not [thread for thread in threading.enumerate() if thread.name == "verigym-engine"]


def test_settings_that_cannot_be_served_are_refused(decoder: Decoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="takes 2 to 256"):
        Generator(decoder, max_context=257)
    with pytest.raises(ConfigError, match="max_batch is 0"):
        Generator(decoder, max_batch=0, max_context=8)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        open_checkpoint(tmp_path / "nowhere", max_batch=1)


def test_a_thread_that_ends_takes_no_later_request_with_it(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request may come between a thread's last look at the queue and its end."""
    ended, go_on = threading.Event(), threading.Event()
    work = Worker._work

    def slow_to_end(self: Worker) -> bool:
        more = work(self)
        if not more and not ended.is_set():
            ended.set()
            assert go_on.wait(60)
        return more

    monkeypatch.setattr(Worker, "_work", slow_to_end)
    monkeypatch.setattr(thread, "_IDLE_SECONDS", 0.01)

    async def main() -> None:
        async with Generator(decoder, max_batch=1, max_context=200) as engine:
            await engine.generate([1], Sampling(max_tokens=1), [])
            await asyncio.to_thread(ended.wait, 60)
            second = asyncio.create_task(engine.generate([2], Sampling(max_tokens=190), []))
            await asyncio.sleep(0)
            go_on.set()
            assert len((await second).token_ids) == 190

    asyncio.run(main())
