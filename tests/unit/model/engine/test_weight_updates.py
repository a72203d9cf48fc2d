"""Weights that change while requests are in flight, and the ways in which they come."""

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from verigym.errors import CheckpointError, PolicyError
from verigym.model.attention import Documents, attend
from verigym.model.chat.sampling import Completion, CompletionPart, Sampling
from verigym.model.checkpoint import save_checkpoint
from verigym.model.decoder import Decoder
from verigym.model.engine.batch import OnWeightUpdate
from verigym.model.engine.generator import Generator
from verigym.model.engine.job import Job, Progress
from verigym.model.engine.weights import checksums, from_checkpoint, received, send_weights, shared_with
from verigym.model.tokenizer import Tokenizer

from ..conftest import small_config
from ..parallel.ranks import run_ranks
from .conftest import answers, brute_force, prompt_of

GREEDY = Sampling(max_tokens=20, temperature=0.0)
PROMPTS = [prompt_of(seed, 6 + 3 * seed) for seed in range(5)]


def _changed(decoder: Decoder) -> None:
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(parameter.roll(1, 0), alpha=0.2)


class Kept:
    """A reference for "keep": all keys and values in one growing list, whatever weights they are of."""

    def __init__(self) -> None:
        self._kv: dict[int, list[Tensor]] = {}

    def attend(self, layer: int, q_THK: Tensor, k_TGK: Tensor, v_TGK: Tensor, window: int | None) -> Tensor:
        held = self._kv.setdefault(layer, [k_TGK[:0], v_TGK[:0]])
        held[:] = [torch.cat((old, new)) for old, new in zip(held, (k_TGK, v_TGK))]
        count, total = len(q_THK), len(held[0])
        keys = Documents.from_lengths([total])
        return attend(q_THK, *held, Documents.from_lengths([count]), window, keys=keys, backend="reference")


async def _interrupted(
    decoder: Decoder, mode: OnWeightUpdate, change: Callable[[Decoder], None]
) -> tuple[list[Completion], list[CompletionPart], Generator]:
    """Greedy answers to all prompts, of which the first is streamed; after its seventh token the weights change."""
    engine = Generator(decoder, max_batch=4, max_context=64, page_size=4, on_weight_update=mode)
    batch, advance = engine._batch, engine._batch.advance
    until = time.monotonic() + 60  # weights that come without their version must fail the test, not hang it

    def held(jobs: Sequence[Job]) -> tuple[list[Progress], list[Job]]:
        """No step comes between the middle of the streamed answer and the new weights, however long those take."""
        streamed = [row for row, job in enumerate(batch._rows.jobs) if job is not None and job.streamed]
        if batch.version or not streamed or batch._rows.count[streamed[0]] < 10 or time.monotonic() > until:
            return advance(jobs)
        time.sleep(0.001)
        return [], list(jobs)

    batch.advance = held  # type: ignore[method-assign]
    others = [asyncio.create_task(engine.generate(prompt, GREEDY, [])) for prompt in PROMPTS[1:]]
    parts: list[CompletionPart] = []
    async for part in engine.stream(PROMPTS[0], GREEDY, []):
        parts.append(part)
        if len(parts) == 7:
            await asyncio.to_thread(engine.update_weights, 1, change)
    return await asyncio.gather(*others), parts, engine


def _joined(parts: Sequence[CompletionPart]) -> Completion:
    return Completion(
        token_ids=tuple(token for part in parts for token in part.token_ids),
        logprobs=tuple(value for part in parts for value in part.logprobs),
        policy_version=tuple(version for part in parts for version in part.policy_version),
        finish_reason=parts[-1].finish_reason or "abort",
    )


def _num_old(completion: Completion) -> int:
    """Tokens of version 0; the versions never go back."""
    assert list(completion.policy_version) == sorted(completion.policy_version)
    return completion.policy_version.count(0)


def test_recompute_goes_on_as_a_cold_engine_would(decoder: Decoder) -> None:
    async def main() -> None:
        others, parts, engine = await _interrupted(decoder, "recompute", _changed)
        await engine.aclose()
        completions = [_joined(parts), *others]
        assert 7 <= _num_old(completions[0]) < 20
        with Generator(decoder, max_batch=1, max_context=64) as cold:  # the weights are the new ones by now
            for prompt, completion in zip(PROMPTS, completions):
                assert len(completion.token_ids) == 20
                if not (rest := 20 - _num_old(completion)):
                    continue
                prefix = [*prompt, *completion.token_ids[:-rest]]
                expected = await cold.generate(prefix, Sampling(max_tokens=rest, temperature=0.0), [])
                assert completion.token_ids[-rest:] == expected.token_ids
                # How prompts fell into batches depends on the clock, and float32 sums on that: up to 2e-5 was seen.
                assert completion.logprobs[-rest:] == pytest.approx(expected.logprobs, abs=5e-5)
                exact = brute_force(decoder, prefix, expected.token_ids, 1.0)
                assert completion.logprobs[-rest:] == pytest.approx(exact, abs=5e-5)

    asyncio.run(main())


def test_keep_goes_on_over_the_old_keys_and_gives_them_to_nobody(decoder: Decoder) -> None:
    old = Decoder(decoder.config)
    old.load_state_dict(decoder.state_dict())

    async def main() -> None:
        others, parts, engine = await _interrupted(decoder, "keep", _changed)
        completions = [_joined(parts), *others]
        assert 7 <= _num_old(completions[0]) < 20
        mixed = 0
        for prompt, completion in zip(PROMPTS, completions):
            num_old = _num_old(completion)
            if num_old in (0, 20):  # began after the change, or ended before it
                continue
            mixed += 1
            # The last token of the old weights was fed to the new ones.
            ids = [*prompt, *completion.token_ids]
            count = len(prompt) + num_old - 1
            cache = Kept()
            with torch.inference_mode():
                old(torch.tensor(ids[:count]), Documents.from_lengths([count]), cache)
                rest = torch.tensor(ids[count:-1])
                hidden = decoder(rest, Documents.from_lengths([len(rest)], starts=[count]), cache)
                logprobs = decoder.logits(hidden).log_softmax(-1)
            exact = logprobs[range(len(rest)), ids[count + 1 :]].tolist()
            assert completion.logprobs[num_old:] == pytest.approx(exact, abs=1e-5)
            fresh = brute_force(decoder, prompt, completion.token_ids, 1.0)[num_old:]
            assert completion.logprobs[num_old:] != pytest.approx(fresh, abs=1e-3)
        assert mixed >= 3
        # A new request on the very tokens of a kept one finds nothing.
        reused = [engine.stats().prompt_tokens_reused]
        prompt = [*PROMPTS[0], *completions[0].token_ids]
        for _ in range(2):  # the second finds what the first computed, and nothing that was kept
            again = await engine.generate(prompt, Sampling(max_tokens=3, temperature=0.0), [])
            assert again.policy_version == (1, 1, 1)
            assert again.logprobs == pytest.approx(brute_force(decoder, prompt, again.token_ids, 1.0), abs=1e-5)
            reused.append(engine.stats().prompt_tokens_reused)
        assert [count - reused[0] for count in reused] == [0, 0, len(prompt) - 1]
        await engine.aclose()

    asyncio.run(main())


def test_abort_returns_what_there_is(decoder: Decoder) -> None:
    async def main() -> None:
        others, parts, engine = await _interrupted(decoder, "abort", _changed)
        first = _joined(parts)
        assert parts[-1].finish_reason == "abort"
        assert 7 <= len(first.token_ids) < 20
        assert set(first.policy_version) == {0}
        assert {completion.finish_reason for completion in others[:3]} == {"abort"}
        for completion in others[:3]:
            assert 0 < len(completion.token_ids) < 20
            assert set(completion.policy_version) == {0}
        # It can be resumed: the answer to prompt and part is the rest.
        rest = await engine.generate([*PROMPTS[0], *first.token_ids], Sampling(max_tokens=4, temperature=0.0), [])
        assert rest.policy_version == (1,) * 4
        # The fifth had no place and no token yet: it began under the new weights.
        assert others[3].finish_reason == "length"
        assert set(others[3].policy_version) == {1}
        await engine.aclose()

    asyncio.run(main())


def test_without_a_setting_requests_in_flight_refuse_new_weights(decoder: Decoder) -> None:
    async def main() -> None:
        async with Generator(decoder, max_context=64) as engine:
            stream = engine.stream(PROMPTS[0], GREEDY, [])
            await anext(stream)
            with pytest.raises(PolicyError, match="on_weight_update"):
                engine.update_weights(1, _changed)
            engine.update_weights(1, _changed, on_weight_update="recompute")
            assert [part.policy_version async for part in stream][-1] == (1,)

    asyncio.run(main())


def _other(seed: int, **changes: object) -> Decoder:
    model = Decoder(small_config(**changes), seed=seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("norm.weight"):
                parameter.mul_(4.0)
    return model


def _assert_served(engine: Generator, served: Decoder, source: Decoder, version: int) -> None:
    """The engine serves the source's weights, bit for bit, as a cold engine does."""
    assert checksums(served) == checksums(source)
    requests = [(prompt, GREEDY) for prompt in PROMPTS]
    with Generator(source, max_batch=2, max_context=64) as cold:
        expected = answers(cold, *requests)
    for completion, exact in zip(answers(engine, *requests), expected):
        assert completion.token_ids == exact.token_ids
        assert completion.logprobs == pytest.approx(exact.logprobs, abs=1e-5)
        assert completion.policy_version == (version,) * 20


def test_weights_shared_with_a_trainer_are_not_copied(decoder: Decoder) -> None:
    trainer = _other(5)
    with Generator(decoder, max_context=64) as engine:
        answers(engine, *((prompt, GREEDY) for prompt in PROMPTS))
        engine.update_weights(1, shared_with(trainer))
        assert [p.data_ptr() for p in decoder.parameters()] == [p.data_ptr() for p in trainer.parameters()]
        _assert_served(engine, decoder, trainer, 1)
        with engine.paused():
            _changed(trainer)  # an optimizer's step
        engine.update_weights(2)
        _assert_served(engine, decoder, trainer, 2)
        with pytest.raises(CheckpointError, match=r"layers\.0\.mlp\.down\.weight"):
            engine.update_weights(3, shared_with(_other(1, intermediate_size=64)))
        assert engine.policy_version == 2
        _assert_served(engine, decoder, trainer, 2)


def test_weights_from_a_folder_of_safetensors(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    saved = _other(6)
    save_checkpoint(tmp_path / "next", saved, tokenizer)
    with Generator(decoder, max_context=64) as engine:
        answers(engine, *((prompt, GREEDY) for prompt in PROMPTS))
        engine.update_weights(4, from_checkpoint(tmp_path / "next"))
        _assert_served(engine, decoder, saved, 4)
        with pytest.raises(CheckpointError, match="no checkpoint at"):
            engine.update_weights(5, from_checkpoint(tmp_path / "nowhere"))
        _assert_served(engine, decoder, saved, 4)


def _broadcast(rank: int, folder: str) -> None:
    """Rank 0 trains; ranks 1 and 2 have an engine each, and in the first round rank 2 a decoder of another shape."""
    source = _other(7)
    if rank == 0:
        with pytest.raises(CheckpointError, match="build both from one config"):
            send_weights(source)
        send_weights(source)
        return
    wrong = {"intermediate_size": 64} if rank == 2 else {}
    first = _other(8, **wrong)
    with pytest.raises(CheckpointError, match="build both from one config"):
        received()(first)
    decoder = _other(9)
    with Generator(decoder, max_context=64) as engine:
        answers(engine, *((prompt, GREEDY) for prompt in PROMPTS))
        engine.update_weights(3, received())
        _assert_served(engine, decoder, source, 3)


def test_weights_by_broadcast(tmp_path: Path) -> None:
    run_ranks(_broadcast, tmp_path, 3)


def test_a_checksum_tells_one_bit_a_buffer_and_a_dtype(decoder: Decoder) -> None:
    before = checksums(decoder)
    assert before.keys() == dict(decoder.named_parameters()).keys()
    with torch.no_grad():
        decoder.norm.weight.view(torch.int32)[3] ^= 1
    after = checksums(decoder)
    assert {name for name in before if before[name] != after[name]} == {"norm.weight"}
    decoder.register_buffer("table", torch.zeros(()))
    assert "table" in checksums(decoder)
    assert checksums(decoder.bfloat16())["embed.weight"] != before["embed.weight"]
