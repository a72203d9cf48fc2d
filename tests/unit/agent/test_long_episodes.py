"""An episode of many turns: a turn costs what it adds, and what is there is kept once."""

import asyncio
import json
import tracemalloc

import pytest

from verigym.agent import columns
from verigym.agent.loop import Budget, rollout
from verigym.agent.policy import TokenPolicy
from verigym.agent.seeds import SeededPolicy
from verigym.agent.trajectory import Trajectory, segments_of
from verigym.envs.core import ToolEnv
from verigym.envs.tools.spec import tool
from verigym.model.chat.actions import encode_calls
from verigym.model.chat.messages import Message, ToolCall
from verigym.model.chat.protocols import Rendered
from verigym.model.chat.sampling import Completion, Sampling
from verigym.rewards.score import verdict

OBSERVED, SAMPLED = 500, 228


class Long(ToolEnv):
    family = "long"

    @tool
    def look(self) -> str:
        """Looks."""
        return "seen"

    async def score(self, task, submission):
        return verdict(True, "fine")


class Renderer:
    stop_token_ids = (0,)

    def start(self, messages, tools):
        return Rendered(token_ids=tuple(range(1000, 1100)), roles=("user",) * 100)

    def extend(self, sampled, messages):
        return Rendered(token_ids=tuple(range(2000, 2000 + OBSERVED)), roles=("tool",) * OBSERVED)

    def decode(self, token_ids):
        return ""


class Parser:
    def parse(self, text, tools):
        call = ToolCall(name="look", arguments={})
        return Message(role="assistant", content="", calls=(call,)), encode_calls([call])


class Engine:
    max_context, policy_version = 1 << 30, 0

    def __init__(self):
        self.lengths = []

    async def generate(self, prompt_ids, sampling, stop_token_ids):
        self.lengths.append(len(prompt_ids))
        first = 100_000 + len(self.lengths) * SAMPLED
        return Completion(
            token_ids=tuple(range(first, first + SAMPLED)),
            logprobs=tuple(-0.001 * (place + 1) for place in range(SAMPLED)),
            policy_version=(3,) * SAMPLED,
            finish_reason="stop",
        )


def play(task, turns):
    engine = Engine()
    policy = SeededPolicy(TokenPolicy(engine, Renderer(), Parser()), "long")
    budget = Budget(turns=turns, tokens=1 << 30, seconds=600)
    found = asyncio.run(rollout(Long(), policy, task, budget=budget, sampling=Sampling(seed=1)))
    return found, engine


@pytest.fixture
def long_task(task):
    from dataclasses import replace

    return replace(task, family="long")


def test_a_thousand_turns_take_at_most_60_mib(long_task):
    play(long_task, 2)
    tracemalloc.start()
    found, engine = play(long_task, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (segment,) = found.segments
    assert len(segment.token_ids) == 100 + 1000 * (SAMPLED + OBSERVED)  # the last answer too
    assert segment.num_sampled == 1000 * SAMPLED
    assert engine.lengths[-1] == 100 + 999 * (SAMPLED + OBSERVED)
    assert peak < 60 << 20, f"{peak / 2**20:.0f} MiB"


def test_a_turn_costs_what_it_adds(long_task, monkeypatch):
    """Tokens that are written into columns: of twice the turns twice as many, not four times."""
    written = []
    encoded = columns.Column._encoded.__func__

    def counting(cls, values):
        found = encoded(cls, values)
        written.append(len(found))
        return found

    monkeypatch.setattr(columns.Column, "_encoded", classmethod(counting))
    costs = []
    for turns in (50, 100, 200):
        written.clear()
        play(long_task, turns)
        costs.append(sum(written))
    assert costs[2] - costs[1] == pytest.approx(2 * (costs[1] - costs[0]), rel=0.05)


def test_the_segment_is_that_of_turns_kept_whole(long_task):
    found, _ = play(long_task, 5)
    (segment,) = found.segments
    ids = tuple(range(1000, 1100))
    for number in range(1, 6):
        ids += tuple(range(100_000 + number * SAMPLED, 100_000 + (number + 1) * SAMPLED))
        ids += tuple(range(2000, 2000 + OBSERVED))
    assert segment.token_ids == ids
    assert segment.roles[:100] == ("user",) * 100
    assert segment.roles[100 + SAMPLED] == "tool"
    assert segment.policy_version[100] == 3
    assert segment.loss_mask[99:101] == (False, True)
    again = Trajectory.from_json(json.loads(json.dumps(found.to_json())))
    assert again.segments == found.segments
    assert segments_of([]) == ()
