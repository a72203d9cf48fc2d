"""What a request may ask for and what it gets: stop texts, log-probabilities of three kinds, streams, refusals."""

import asyncio
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from verigym.errors import PolicyError, QueueFull, RequestRefused
from verigym.model.attention import Documents
from verigym.model.chat.incremental import IncrementalText, StopText
from verigym.model.chat.sampling import CompletionPart, Sampling
from verigym.model.decoder import Decoder
from verigym.model.engine.generator import Generator

PROMPT = np.random.default_rng(0).integers(0, 320, 9).tolist()


def _spelled(token_ids: Sequence[int]) -> str:
    return "".join(f"<{token}>" for token in token_ids)


def _bytes(token_ids: Sequence[int]) -> str:
    return bytes(token_ids).decode("utf-8", errors="replace")


def _logits(decoder: Decoder, ids: Sequence[int]) -> torch.Tensor:
    with torch.no_grad():
        return decoder.logits(decoder(torch.tensor(list(ids)), Documents.from_lengths([len(ids)])))


@pytest.mark.parametrize("text", ["abc", "é€\U0001f600!", "a\ufffdb", "naïve 東京"])
def test_incremental_text_gives_whole_characters_and_in_the_end_all(text: str) -> None:
    stream = IncrementalText(_bytes)
    pieces = [stream.push([byte]) for byte in text.encode()]
    assert "".join([*pieces, stream.flush()]) == text
    assert all(len(piece) <= 2 for piece in pieces)
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


def _byte_by_byte(token_ids: Sequence[int]) -> str:
    """As SentencePiece's fallback to bytes: of a character that is not whole each byte is a U+FFFD."""
    data = bytes(token_ids)
    return data.decode("utf-8", errors="surrogateescape").translate(dict.fromkeys(range(56448, 56576), 65533))


def test_a_fallback_to_bytes_streams_whole_characters_and_stops_at_them() -> None:
    stream = IncrementalText(_byte_by_byte)
    assert [stream.push([byte]) for byte in "a東😀".encode()] == ["a", "", "", "東", "", "", "", "😀"]
    stop = StopText(_byte_by_byte, ["東"])
    assert [stop.push(byte) for byte in "a東".encode()] == [None, None, None, "東"]
    stream = IncrementalText(_byte_by_byte)
    assert "".join([*(stream.push([0x80]) for _ in range(9)), stream.flush()]) == "\ufffd" * 9


def test_bytes_that_never_become_a_character_are_given_at_the_end() -> None:
    stream = IncrementalText(_bytes)
    assert stream.push([0xF0, 0x9F]) == ""
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_the_stop_text_that_ends_first_is_found_across_tokens() -> None:
    stop = StopText(_bytes, ["END", "€", "xyz"])
    assert [stop.push(byte) for byte in b"abEN"] == [None] * 4
    assert stop.push(ord("D")) == "END"
    stop = StopText(_bytes, ["€"])
    assert [stop.push(byte) for byte in "a€".encode()] == [None, None, None, "€"]


def test_a_stop_text_ends_a_completion_and_its_tokens_are_kept(decoder: Decoder) -> None:
    async def main() -> None:
        async with Generator(decoder, max_context=48, decode=_spelled) as engine:
            free = await engine.generate(PROMPT, Sampling(max_tokens=12, seed=1), [])
            text = f"{free.token_ids[3]}><{str(free.token_ids[4])[0]}"
            stopped = await engine.generate(PROMPT, Sampling(max_tokens=12, seed=1, stop=("no such", text)), [])
            assert stopped.token_ids == free.token_ids[: len(stopped.token_ids)]
            assert len(stopped.token_ids) <= 5
            assert text in _spelled(stopped.token_ids)
            assert text not in _spelled(stopped.token_ids[:-1])
            assert (stopped.finish_reason, stopped.stop_reason) == ("stop", text)
            by_token = await engine.generate(PROMPT, Sampling(max_tokens=12, seed=1), [free.token_ids[2]])
            assert (by_token.finish_reason, by_token.stop_reason) == ("stop", free.token_ids[2])
            assert (free.finish_reason, free.stop_reason) == ("length", None)

    asyncio.run(main())


def test_raw_and_top_logprobs_are_the_models_own(decoder: Decoder) -> None:
    sampling = Sampling(max_tokens=6, temperature=0.6, top_k=5, num_top_logprobs=3, raw_logprobs=True, seed=2)

    async def main() -> None:
        async with Generator(decoder, max_context=48) as engine:
            plain, full = await asyncio.gather(
                engine.generate([3, 4], Sampling(max_tokens=3), []), engine.generate(PROMPT, sampling, [])
            )
        assert plain.raw_logprobs is None
        assert plain.top_logprobs is None
        exact = _logits(decoder, [*PROMPT, *full.token_ids])[len(PROMPT) - 1 : -1].log_softmax(-1)
        assert full.raw_logprobs == pytest.approx(exact[range(6), list(full.token_ids)].tolist(), abs=1e-5)
        assert full.top_logprobs is not None
        for place, row in enumerate(full.top_logprobs):
            top = exact[place].topk(3)
            assert [token for token, _ in row] == top.indices.tolist()
            assert [value for _, value in row] == pytest.approx(top.values.tolist(), abs=1e-5)
        assert full.logprobs != pytest.approx(full.raw_logprobs, abs=1e-3)

    asyncio.run(main())


def test_a_stream_joined_is_the_completion(decoder: Decoder) -> None:
    sampling = Sampling(max_tokens=9, temperature=0.8, num_top_logprobs=2, raw_logprobs=True, seed=4)

    async def main() -> None:
        async with Generator(decoder, max_context=48, decode=_spelled) as engine:
            whole = await engine.generate(PROMPT, sampling, [])
            others = [asyncio.create_task(engine.generate([i], Sampling(max_tokens=20), [])) for i in range(3)]
            parts: list[CompletionPart] = [part async for part in engine.stream(PROMPT, sampling, [])]
            await asyncio.gather(*others)
        assert [part.finish_reason for part in parts] == [None] * 8 + ["length"]
        assert tuple(token for part in parts for token in part.token_ids) == whole.token_ids
        for name in ("logprobs", "raw_logprobs"):
            joined = [value for part in parts for value in getattr(part, name)]
            assert joined == pytest.approx(getattr(whole, name), abs=1e-5)
        ids = [[token for token, _ in row] for part in parts for row in part.top_logprobs or ()]
        assert ids == [[token for token, _ in row] for row in whole.top_logprobs or ()]

    asyncio.run(main())


def test_closing_a_stream_frees_its_place(decoder: Decoder) -> None:
    async def main() -> None:
        async with Generator(decoder, max_batch=1, max_context=250) as engine:
            stream = engine.stream([1], Sampling(max_tokens=249), [])
            await anext(stream)
            with engine.paused():
                await stream.aclose()  # pyright: ignore[reportAttributeAccessIssue]
                drawn = engine.stats().generated_tokens
            await asyncio.wait_for(engine.generate([2], Sampling(max_tokens=3), []), 60)
            stats = engine.stats()
            assert (stats.num_running, stats.pages_used, stats.generated_tokens) == (0, 0, drawn + 3)

    asyncio.run(main())


def test_a_score_is_the_prompts_own_logprobs(decoder: Decoder) -> None:
    async def main() -> None:
        async with Generator(decoder, max_batch=1, max_context=9) as engine:
            score = await engine.score(PROMPT, 4)
            lone = await engine.score([7])
        exact = _logits(decoder, PROMPT)[:-1].log_softmax(-1)
        assert score.logprobs[0] is None
        assert list(score.logprobs[1:]) == pytest.approx(exact[range(8), PROMPT[1:]].tolist(), abs=1e-5)
        assert score.top_logprobs is not None
        assert score.top_logprobs[0] is None
        for row, logprobs in zip(score.top_logprobs[1:], exact):
            assert row is not None
            assert [token for token, _ in row] == logprobs.topk(4).indices.tolist()
        assert (lone.logprobs, lone.top_logprobs) == ((None,), None)

    asyncio.run(main())


def test_a_long_score_lets_others_sample_between_its_chunks(decoder: Decoder) -> None:
    """Windows of 4 crossed by chunks of 2: the numbers are those of one forward."""
    prompt = np.random.default_rng(1).integers(0, 320, 60).tolist()
    order: list[str] = []

    async def main() -> None:
        async with Generator(decoder, max_batch=2, max_context=64, step_tokens=2) as engine:
            with engine.paused():
                scores = [asyncio.create_task(engine.score(prompt[:length], 2)) for length in (60, 3)]
                gone = asyncio.create_task(engine.score(prompt))
                answer = asyncio.create_task(engine.generate([7], Sampling(max_tokens=10), []))
                for name, task in (("score", scores[0]), ("answer", answer)):
                    task.add_done_callback(lambda _, name=name: order.append(name))
                await asyncio.sleep(0)
                gone.cancel()
                await asyncio.sleep(0)
            await answer
            long, short = await asyncio.gather(*scores)
            assert engine.stats().prompt_tokens_computed == 60 + 3 + 1
        exact = _logits(decoder, prompt)[:-1].log_softmax(-1)
        for score, length in ((long, 60), (short, 3)):
            told = exact[range(length - 1), prompt[1:length]].tolist()
            assert list(score.logprobs[1:]) == pytest.approx(told, abs=1e-5)
            assert score.top_logprobs is not None
            assert len(score.top_logprobs) == length
        assert order == ["answer", "score"]

    asyncio.run(main())


def test_a_score_starts_anew_under_new_weights(decoder: Decoder) -> None:
    prompt = np.random.default_rng(1).integers(0, 320, 200).tolist()
    other = Decoder(decoder.config, seed=5)

    async def main() -> None:
        async with Generator(decoder, max_batch=1, max_context=256, step_tokens=1) as engine:
            waiting = asyncio.create_task(engine.score(prompt))
            while not engine.stats().prompt_tokens_computed:
                await asyncio.sleep(0.001)
            engine.update_weights(4, lambda own: own.load_state_dict(other.state_dict()), on_weight_update="recompute")
            score = await waiting
            assert score.policy_version == 4
        exact = _logits(other, prompt)[:-1].log_softmax(-1)
        assert list(score.logprobs[1:]) == pytest.approx(exact[range(199), prompt[1:]].tolist(), abs=1e-5)

    asyncio.run(main())


def test_what_can_never_be_answered_is_refused(decoder: Decoder) -> None:
    async def main() -> None:
        async with Generator(decoder, max_batch=1, max_context=8) as engine:
            with pytest.raises(RequestRefused, match="knows no text"):
                await engine.generate([1], Sampling(stop=("x",)), [])
            with pytest.raises(RequestRefused, match="num_top is 21"):
                await engine.score([1], 21)
            with pytest.raises(RequestRefused, match="9 tokens and the context 8"):
                await engine.score([1] * 9)
            with pytest.raises(RequestRefused, match="id 320"):
                await anext(engine.stream([320], Sampling(), []))

    asyncio.run(main())


def test_a_full_queue_says_so_and_goes_on(decoder: Decoder) -> None:
    async def main() -> None:
        async with Generator(decoder, max_batch=1, max_context=64, max_waiting=2) as engine:
            requests = [engine.generate([i], Sampling(max_tokens=30), []) for i in range(6)]
            answers = await asyncio.gather(*requests, return_exceptions=True)
            assert [isinstance(answer, QueueFull) for answer in answers] == [False] * 3 + [True] * 3
            assert not isinstance(await engine.generate([1], Sampling(max_tokens=2), []), PolicyError)
            stats = engine.stats()
            assert stats.generated_tokens == 3 * 30 + 2
            assert stats.prompt_tokens_computed + stats.prompt_tokens_reused == 4

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": math.nan},
        {"temperature": -0.1},
        {"top_p": math.nan},
        {"top_p": 0.0},
        {"min_p": 1.5},
        {"min_p": math.nan},
        {"top_k": -1},
        {"max_tokens": 0},
        {"stop": ("",)},
        {"stop": "x"},
        {"num_top_logprobs": 21},
    ],
)
def test_settings_without_a_meaning_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)
