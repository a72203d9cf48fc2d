"""One seed for each turn of each episode."""

import asyncio

from verigym.agent.policy import ScriptedPolicy, Turn
from verigym.agent.seeds import SeededPolicy, derive_seed
from verigym.model.chat.messages import Message
from verigym.model.chat.sampling import Sampling


class Recorder:
    """Notes the seeds that turns are asked for with."""

    def __init__(self):
        self.seeds = []
        self._policy = ScriptedPolicy(lambda messages: Message(role="assistant", content="ok"))

    async def respond(self, conversation, tools, sampling):
        self.seeds.append(sampling.seed)
        return await self._policy.respond(conversation, tools, sampling)


def seeds_of(seed, *place, turns=3):
    recorder, conversation = Recorder(), [Message(role="user", content="go")]
    policy = SeededPolicy(recorder, *place)

    async def play():
        for _ in range(turns):
            turn = await policy.respond(conversation, (), Sampling(seed=seed))
            assert isinstance(turn, Turn)
            conversation.extend([turn, Message(role="user", content="on")])

    asyncio.run(play())
    return recorder.seeds


def test_every_turn_of_every_episode_has_a_seed_of_its_own_and_keeps_it():
    found = [seeds_of(seed, *place) for seed in (0, 1) for place in (("a", 0), ("a", 1), ("b", 0))]
    flat = [seed for seeds in found for seed in seeds]
    assert len(set(flat)) == len(flat) == 18
    assert all(0 <= seed < 2**31 for seed in flat)
    assert seeds_of(0, "a", 0) == found[0]


def test_without_a_seed_none_is_made():
    assert seeds_of(None, "a", turns=1) == [None]


def test_names_that_are_no_text_have_seeds():
    assert derive_seed(0, "\udc80") != derive_seed(0, "\udc81")
