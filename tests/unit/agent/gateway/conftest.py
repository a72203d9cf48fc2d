"""An engine that says what it is told, token by token, and a gateway in the test's own event loop."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from verigym.agent.gateway.serve import Gateway
from verigym.agent.policy import TokenPolicy, joined
from verigym.model.chat.cwm import CwmParser, CwmRenderer
from verigym.model.chat.sampling import CompletionPart, Sampling
from verigym.model.tokenizer import train_tokenizer

LOOK = "I look.\n<tool: bash>\nls -l\n</tool>"
TWICE = "<tool: bash>\nls\n</tool>\n<tool: bash>\npwd\n</tool>"


class Told:
    """Each text is a turn; all tokens have the log-probability -0.5. ``hold``: nothing is sampled before it is set."""

    policy_version, max_context = 3, 4000

    def __init__(self, tokenizer, *texts, hold=None):
        self.tokenizer, self.texts, self.hold = tokenizer, list(texts), hold
        self.prompts, self.samplings, self.sampled, self.num_inside = [], [], [], 0

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        return joined([part async for part in self.stream(prompt_ids, sampling, stop_token_ids)])

    async def stream(self, prompt_ids, sampling, stop_token_ids):
        self.prompts.append(tuple(prompt_ids))
        self.samplings.append(sampling)
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        if isinstance(text, Exception):
            raise text
        ids = [*self.tokenizer.encode(text), stop_token_ids[0]]
        self.sampled.append(tuple(ids))
        self.num_inside += 1
        try:
            if self.hold is not None:
                await self.hold.wait()
            for place, token in enumerate(ids):
                await asyncio.sleep(0)
                last = place == len(ids) - 1
                yield CompletionPart(
                    token_ids=(token,),
                    logprobs=(-0.5,),
                    policy_version=(self.policy_version,),
                    finish_reason="stop" if last else None,
                    stop_reason=token if last else None,
                )
        finally:
            self.num_inside -= 1


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(["the quick brown fox <tool: bash>\nls -l\n</tool> jumps" * 8], 320)


@pytest.fixture
def told(tokenizer):
    """Makes (engine, policy) of texts."""

    def make(*texts, reasoning=False, **options):
        engine = Told(tokenizer, *texts, **options)
        return engine, TokenPolicy(engine, CwmRenderer(tokenizer, reasoning=reasoning), CwmParser(reasoning=reasoning))

    return make


@pytest.fixture
def opened():
    """A context manager: (gateway, session) over a policy."""

    @asynccontextmanager
    async def open_one(policy, **options):
        sampling = options.pop("sampling", Sampling(max_tokens=300))
        async with Gateway().serving() as gateway, gateway.open(policy, sampling, **options) as session:
            yield gateway, session

    return open_one
