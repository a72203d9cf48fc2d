"""The policy's engine over HTTP against our server: the same tokens and numbers as the embedded engine."""

import asyncio

import pytest

from verigym.agent.policy import ContextFull, TokenPolicy
from verigym.agent.remote_engine import RemoteEngine
from verigym.errors import ConfigError, PolicyError
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling
from verigym.model.checkpoint import save_checkpoint
from verigym.model.decoder import Decoder
from verigym.model.engine.generator import Generator
from verigym.model.engine.open import open_checkpoint

from .conftest import Endless, model_of, running


@pytest.fixture(scope="module")
def processed(decoder, tokenizer):
    engine = Generator(decoder, max_batch=4, max_context=256, num_threads=1, decode=tokenizer.decode)
    with running(model_of(engine, tokenizer), logprobs_mode="processed_logprobs") as one:
        yield one


def remotely(server, work, **options):
    async def main():
        engine = await RemoteEngine.connect(server.url, "tiny", **{"backoff_s": 0.01, "attempts": 2, **options})
        try:
            return await work(engine)
        finally:
            await engine.aclose()

    return asyncio.run(main())


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_same_tokens_and_numbers_as_the_embedded_engine(processed, temperature):
    """Traps 5 and 8: log-probabilities of what was drawn from, the stop token's among them."""
    prompt = [7, 30, 200, 9]
    samplings = [
        Sampling(max_tokens=30, temperature=temperature, seed=seed, top_k=top_k, top_p=top_p)
        for seed, (top_k, top_p) in enumerate([(0, 1.0), (0, 1.0), (5, 1.0), (0, 0.8)])
    ]
    stops = tuple(range(100, 140))

    async def work(engine):
        return list(await asyncio.gather(*(engine.generate(prompt, one, stops) for one in samplings)))

    async def embedded():
        engine = processed.engine
        return list(await asyncio.gather(*(engine.generate(prompt, one, stops) for one in samplings)))

    found, expected = remotely(processed, work), asyncio.run(embedded())
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.token_ids == theirs.token_ids
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)
        assert (ours.finish_reason, ours.stop_reason) == (theirs.finish_reason, theirs.stop_reason)
        assert ours.policy_version == theirs.policy_version
    assert "stop" in [one.finish_reason for one in found]


def test_a_token_policy_over_http(processed, tokenizer):
    conversation = [Message(role="user", content="what is it?")]

    async def work(engine):
        policy = TokenPolicy(engine, CwmRenderer(tokenizer), CwmParser())
        turn = await policy.respond(conversation, (), Sampling(max_tokens=8, seed=3))
        after = [*conversation, turn, Message(role="user", content="and that?")]
        return turn, await policy.respond(after, (), Sampling(max_tokens=8, seed=4))

    first, second = remotely(processed, work)
    assert second.tokens.prompt_ids[: len(first.tokens.prompt_ids)] == first.tokens.prompt_ids
    assert second.tokens.prompt_ids[len(first.tokens.prompt_ids) :][: len(first.tokens.token_ids)] == (
        first.tokens.token_ids
    )
    assert len(second.tokens.logprobs) == len(second.tokens.token_ids) >= 1


def test_raw_logprobs_are_found_out(server):
    """Trap 5: the server of raw log-probabilities would make every ratio wrong without a sound."""
    with pytest.raises(ConfigError, match="--logprobs-mode processed_logprobs"):
        remotely(server, lambda engine: asyncio.sleep(0))


def test_what_the_server_lacks_is_told(processed):
    async def connect(**options):
        await RemoteEngine.connect(processed.url, **options)

    with pytest.raises(ConfigError, match="has no model 'gpt-9'; it has tiny"):
        asyncio.run(connect(model="gpt-9"))
    with pytest.raises(PolicyError, match="no answer in 2 attempts"):
        asyncio.run(RemoteEngine.connect("http://127.0.0.1:9", "tiny", attempts=2, backoff_s=0.01))

    async def too_long(engine):
        with pytest.raises(ContextFull):
            await engine.generate([7] * 256, Sampling(max_tokens=2), ())
        with pytest.raises(PolicyError, match="holds id 999"):
            await engine.generate([999], Sampling(max_tokens=2), ())

    remotely(processed, too_long)


def test_new_weights_over_http(decoder, tokenizer, tmp_path):
    save_checkpoint(tmp_path / "old", decoder, tokenizer)
    save_checkpoint(tmp_path / "new", Decoder(decoder.config, seed=9), tokenizer)
    greedy = Sampling(max_tokens=8, temperature=0.0)

    async def work(engine):
        before = await engine.generate([7, 8, 9], greedy, ())
        await engine.update_weights(12, {"path": str(tmp_path / "new")}, mode="wait")
        assert engine.policy_version == 12
        with pytest.raises(PolicyError, match="no checkpoint"):
            await engine.update_weights(13, {"path": str(tmp_path / "nowhere")})
        return before

    model = open_checkpoint(tmp_path / "old", max_batch=4, num_threads=1, device="cpu")
    options = {"logprobs_mode": "processed_logprobs", "allow_weight_updates": True}
    with running(model, **options) as server:
        before = remotely(server, work)
    assert before.policy_version == (0,) * 8
    model = open_checkpoint(tmp_path / "old", max_batch=4, num_threads=1, device="cpu")
    cold = open_checkpoint(tmp_path / "new", max_batch=4, num_threads=1, device="cpu")

    async def update_and_ask(engine):
        await engine.update_weights(12, {"path": str(tmp_path / "new")})
        return await engine.generate([7, 8, 9], greedy, ())

    with running(model, **options) as server, running(cold, **options) as other:
        after = remotely(server, update_and_ask)
        expected = remotely(other, lambda engine: engine.generate([7, 8, 9], greedy, ()))
    assert after.token_ids == expected.token_ids != before.token_ids
    assert after.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
    assert after.policy_version == (12,) * 8


def test_a_cancelled_episode_leaves_nothing_on_the_server(tokenizer):
    engine = Endless(tokenizer)
    with running(model_of(engine, tokenizer)) as server:

        async def work():
            from verigym.agent.endpoint import Endpoint

            remote = RemoteEngine(Endpoint(server.url), "tiny", 512, 0)
            task = asyncio.create_task(remote.generate([7], Sampling(), ()))
            while not engine.num_inside:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for _ in range(1000):
                if not engine.num_inside:
                    break
                await asyncio.sleep(0.01)
            await remote.aclose()

        asyncio.run(work())
        assert engine.num_inside == 0
