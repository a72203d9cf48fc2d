"""Whatever a harness does to its context: each token that is trained was sampled, once, and the trainer gives it the
log-probability that the engine gave it."""

import asyncio
import json
import random
from collections import Counter

import pytest
import torch

from verigym.agent.gateway.chat_completions import ChatCompletions
from verigym.agent.gateway.session import Limits, Session
from verigym.agent.policy import TokenPolicy, joined
from verigym.agent.tree import MessageTree
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.sampling import Sampling
from verigym.model.config import preset
from verigym.model.decoder import Decoder
from verigym.model.engine.generator import Generator
from verigym.trainer.batching.documents import document_of
from verigym.trainer.batching.packs import join
from verigym.trainer.learning.scores import score

DIALECT = ChatCompletions()
CALL = {"id": "made-up", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
TOOL = {
    "type": "function",
    "function": {"name": "bash", "parameters": {"type": "object", "properties": {"command": {"type": "string"}}}},
}
CONTEXT = 1024


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.set_num_threads(1)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16}
    config = preset("cwm-tiny", vocab_size=tokenizer.vocab_size, max_position_embeddings=CONTEXT, **sizes)
    decoder = Decoder(config, seed=3)
    with torch.no_grad():  # sharp distributions: errors show
        for parameter in decoder.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2.0)
    return decoder


class Recorded:
    """An engine that keeps what it gave."""

    def __init__(self, engine):
        self._engine, self.given = engine, []
        self.max_context, self.policy_version = engine.max_context, engine.policy_version

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        return joined([part async for part in self.stream(prompt_ids, sampling, stop_token_ids)])

    async def stream(self, prompt_ids, sampling, stop_token_ids):
        ids, logprobs = [], []
        async for part in self._engine.stream(prompt_ids, sampling, stop_token_ids):
            ids += part.token_ids
            logprobs += part.logprobs
            if part.finish_reason is not None:
                self.given.append((tuple(prompt_ids), tuple(ids), tuple(logprobs)))
            yield part


class Harness:
    """Does anything to its messages, and asks."""

    def __init__(self, session, seed):
        self.session, self.random = session, random.Random(seed)
        self.messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "list the files"}]
        self.snapshots, self.lost, self.last = [list(self.messages)], [], None

    async def ask(self, *, deliver=True, again=False, messages=None):
        """The answer; None where it was refused."""
        body = {"model": "verigym", "messages": self.messages if messages is None else messages, "tools": [TOOL]}
        held = json.dumps(body).encode()
        asked = DIALECT.read(body)
        drawing = self.session.draw(asked, held, again=again)
        try:
            answered = await drawing.whole()
        finally:
            drawing.release(delivered=deliver)
        return DIALECT.answer(asked, answered)["choices"][0]["message"], drawing

    async def step(self):
        await getattr(self, self.random.choice([one for one in dir(self) if one.startswith("do_")]))()
        if len(self.messages) > 8:
            await self.do_compact()

    async def go_on(self):
        said, _ = await self.ask()
        self.last = list(self.messages)
        self.messages.append(said)
        for call in said.get("tool_calls", ()):
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": "a b"})
        self.messages.append({"role": "user", "content": self.random.choice(["go", "on", "the quick fox"])})
        self.snapshots.append(list(self.messages))

    do_go_on = do_go_on_too = go_on

    async def do_drop(self):
        if len(self.messages) > 2:
            del self.messages[self.random.randrange(1, len(self.messages))]
            self.messages = [one for one in self.messages if one["role"] != "tool"]
            await self.go_on()

    async def do_edit(self):
        place = self.random.randrange(1, len(self.messages))
        self.messages[place] = {**self.messages[place], "content": self.random.choice(["other", "", "the quick brown"])}
        await self.go_on()

    async def do_cut_a_turn(self):
        """The first half of what the model said, as its own."""
        for place, one in enumerate(self.messages):
            if one["role"] == "assistant" and one.get("content") and not one.get("tool_calls"):
                self.messages[place] = {**one, "content": one["content"][: len(one["content"]) // 2]}
        await self.go_on()

    async def do_reorder(self):
        if len(self.messages) > 3:
            place = self.random.randrange(1, len(self.messages) - 1)
            pair = self.messages[place : place + 2]
            if all(one["role"] == "user" for one in pair) or "tool" not in {one["role"] for one in pair}:
                self.messages[place : place + 2] = reversed(pair)
            await self.go_on()

    async def do_compact(self):
        said, _ = await self.ask(messages=[*self.messages, {"role": "user", "content": "sum up"}])
        self.messages = [self.messages[0], {"role": "user", "content": f"so far {said['content'][:40]}"}]
        await self.go_on()

    async def do_repeat(self):
        """The same request, which was answered: another draw."""
        await self.ask()
        await self.ask()

    async def do_fork(self):
        self.messages = list(self.random.choice(self.snapshots))
        await self.go_on()

    async def do_many_at_once(self):
        await asyncio.gather(*(self.ask() for _ in range(3)))

    async def do_retry(self):
        first, drawing = await self.ask(deliver=False)
        second, same = await self.ask()
        assert (second, same) == (first, drawing)

    async def do_say_that_it_retries(self):
        first, drawing = await self.ask()
        second, same = await self.ask(again=True)
        assert (second, same) == (first, drawing)

    async def do_cancel(self):
        """What nobody receives, and nobody asks for again."""
        lost = {"role": "user", "content": f"lost {len(self.lost)}"}
        _, drawing = await self.ask(deliver=False, messages=[*self.messages, lost])
        self.lost.append(drawing)

    async def do_put_words_into_its_mouth(self):
        answer = {"role": "tool", "tool_call_id": "made-up", "content": "x"}
        self.messages += [{"role": "assistant", "content": "I never", "tool_calls": [CALL]}, answer]
        await self.go_on()


async def played(decoder, tokenizer, seed, temperature):
    """(what the engine gave, the harness, the session) after some steps."""
    engine = Generator(decoder, max_batch=4, max_context=CONTEXT, num_threads=1, decode=tokenizer.decode)
    recorded = Recorded(engine)
    policy = TokenPolicy(recorded, CwmRenderer(tokenizer), CwmParser())
    sampling = Sampling(max_tokens=12, temperature=temperature, seed=seed)
    session = Session(policy, sampling, limits=Limits(turns=1000, tokens=CONTEXT))
    harness = Harness(session, seed)
    try:
        for _ in range(12):
            await harness.step()
    finally:
        await session.aclose()
        await engine.aclose()
    return recorded.given, harness, session


@pytest.mark.parametrize("seed", range(6))
def test_every_trained_token_was_sampled_and_is_trained_once(model, tokenizer, seed):
    temperature = (1.0, 0.7)[seed % 2]
    given, harness, session = asyncio.run(played(model, tokenizer, seed, temperature))
    tree = session.tree()
    assert tree is not None
    segments = tree.segments()
    trained = Counter(
        (tuple(segment.token_ids[:place]), segment.token_ids[place], segment.logprobs[place])
        for segment in segments
        for place, mask in enumerate(segment.loss_mask)
        if mask
    )
    lost = Counter((tuple(one.turn.tokens.prompt_ids), tuple(one.turn.tokens.token_ids)) for one in harness.lost)
    expected = Counter()
    for prompt, ids, logprobs in given:
        if lost[prompt, ids]:
            lost[prompt, ids] -= 1
            continue
        expected.update(
            ((*prompt, *ids[:place]), token, logprob) for place, (token, logprob) in enumerate(zip(ids, logprobs))
        )
    assert not lost.total()
    assert trained == expected
    assert session.counts.undelivered == len(harness.lost)
    assert session.counts.turns == len(given)
    assert len(given) > 8

    documents = [document_of(segment, sampled=True) for segment in segments]
    batch = join([one for one in documents if one is not None], temperature=temperature)
    scores = score(model, batch)
    torch.testing.assert_close(scores.logprobs, batch.old_logprobs[scores.index], rtol=0, atol=1e-5)


def test_the_harness_does_what_it_says(model, tokenizer):
    """Over all seeds there are branches, repeats, changes and turns that are lost."""
    found = [asyncio.run(played(model, tokenizer, seed, 1.0))[2] for seed in range(3)]
    assert all(len((session.tree() or MessageTree()).branches()) > 3 for session in found)
    for name in ("repeats", "changed"):
        assert sum(getattr(session.counts, name) for session in found) > 3
    assert sum(session.counts.undelivered for session in found) > 0
